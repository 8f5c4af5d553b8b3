package admission_test

import (
	"net"
	"testing"
	"time"

	"isospin/internal/agent/admission"
)

func TestOneSourceTakesNoMoreThanItsShare(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := admission.New(inner, admission.Options{PerSource: 2, Total: 3})
	accepted := make(chan net.Conn, 10)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func(source string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 5 * time.Second}
		c, err := d.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	refused := func(c net.Conn) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("the connection was admitted")
		} else if e, ok := err.(net.Error); ok && e.Timeout() {
			t.Fatal("the connection was not closed")
		}
	}
	dial("127.0.0.1")
	second := dial("127.0.0.1")
	<-accepted
	first := <-accepted
	refused(dial("127.0.0.1"))
	dial("127.0.0.2")
	<-accepted
	refused(dial("127.0.0.3")) // the total

	second.Close()
	first.Close() // ours of it
	dial("127.0.0.1")
	last := <-accepted

	l.Close()
	if _, err := last.Read(make([]byte, 1)); err == nil {
		t.Fatal("a connection outlived its listener")
	}
	for range accepted {
	}
}
