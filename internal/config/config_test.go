package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Options of the tests; their groups are no part of Neutron.
var (
	tText    = String("test", "text", "a", "A text.")
	tCalled  = String("test", "called", "x-$text-${other.size}", "A text made of others.")
	tChoice  = String("test", "choice", "red", "A choice.", Choices("red", "green"))
	tSecret  = String("test", "password", "", "A password.", Secret())
	tPin     = Int("test", "pin", 0, "A secret number.", Secret())
	tBool    = Bool("test", "flag", true, "A flag.")
	tSize    = Int("other", "size", 5, "A size.", Min(1), Max(10), Deprecated("old", "length"), Deprecated("other", "len"))
	tRatio   = Float("other", "ratio", 1.5, "A ratio.", Min(0))
	tList    = Strings("test", "list", []string{"p", "q"}, "A list.")
	tParts   = Strings("test", "parts", nil, "Parts.", WithoutEffect("idle", "nobody waits for it"))
	tMulti   = Multi("test", "multi", nil, "Values.")
	tMap     = Map("test", "map", map[string]string{"k": "v"}, "A map.")
	tAddress = String("test", "address", "", "An address.", Formed(Address))
)

func init() { NoEffect("test", "forgotten", "nobody remembers") }

func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func parse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := FromText(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestValues(t *testing.T) {
	c := parse(t, `
[test]
text = first
text = $$5 and \$6 and $7
choice: green
password = "s3 cret"
flag = OFF
list = a, b,,
  c
multi = one
multi = two
map = x:1, y:2:3
address = fe80::1
[OTHER]
size = +7
ratio = 0.25
`)
	got := fmt.Sprint(tText.Of(c), "|", tChoice.Of(c), "|", tSecret.Of(c), "|", tBool.Of(c), "|", tList.Of(c), "|",
		tMulti.Of(c), "|", tMap.Of(c), "|", tAddress.Of(c), "|", tSize.Of(c), "|", tRatio.Of(c), "|", tCalled.Of(c))
	want := "$5 and $6 and $7|green|s3 cret|false|[a b c]|[one two]|map[x:1 y:2:3]|fe80::1|7|0.25|x-$5 and $6 and $7-+7"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !tSize.IsSet(c) || tPin.IsSet(c) {
		t.Errorf("IsSet: size %v, pin %v; want true, false", tSize.IsSet(c), tPin.IsSet(c))
	}
}

func TestDefaults(t *testing.T) {
	for _, c := range []*Config{nil, parse(t, ""), parse(t, "[other]\nsize =\n")} {
		got := fmt.Sprint(tText.Of(c), tBool.Of(c), tSize.Of(c), tRatio.Of(c), tList.Of(c), tMulti.Of(c), tMap.Of(c), tCalled.Of(c))
		if want := "atrue 5 1.5 [p q] [] map[k:v]x-a-5"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	list := tList.Of(nil)
	list[0] = "changed"
	if got := tList.Of(nil)[0]; got != "p" {
		t.Errorf("a caller changed the default to %q", got)
	}
	if got := FeedListen.Of(nil); got != "unix:/var/lib/neutron/feed.sock" {
		t.Errorf("feed_listen = %q", got)
	}
}

func TestPrecedence(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "conf.d")
	if err := os.Mkdir(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	a := write(t, dir, "a.conf", "[test]\ntext = a\nlist = a\nmulti = a\nchoice = green\nflag = no\n[other]\nsize = 1\nlen = 9\n")
	b := write(t, dir, "b.conf", "[test]\ntext = b\nlist = b\nmulti = b\n[old]\nlength = 2\n")
	write(t, conf, "20.conf", "[test]\ntext = 20\nmulti = 20\n")
	write(t, conf, "10.conf", "[test]\ntext = 10\nmulti = 10\n")
	write(t, conf, "30.ini", "[test]\ntext = not read\n")
	write(t, conf, ".hidden.conf", "[test]\ntext = not read\n")

	c, err := Load(LoadOptions{Files: []string{a, b}, Dirs: []string{conf},
		Environ: []string{"OS_TEST__CHOICE=red", "HOME=/x", "OS_TEST__FLAG=yes", "OS_AUTH_URL=http://x"}})
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprint(tText.Of(c), " ", tList.Of(c), tMulti.Of(c), tChoice.Of(c), tBool.Of(c), tSize.Of(c))
	if want := "20 [b] [a b 10 20]redtrue 2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	want := []string{a, b, filepath.Join(conf, "10.conf"), filepath.Join(conf, "20.conf")}
	if diff := cmp.Diff(want, c.Files()); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

func TestSectionsIgnoreCaseExceptDEFAULT(t *testing.T) {
	c := parse(t, "[AGENT]\ntunnel_types = vxlan\n[quotas]\nquota_port = 7\n[default]\nbind_port = 1\n")
	if got := fmt.Sprint(AgentTunnelTypes.Of(c), QuotaPort.Of(c), BindPort.Of(c)); got != "[vxlan] 7 9696" {
		t.Errorf("got %s", got)
	}
}

func TestWrongValues(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"[other]\nsize = eleven", `text:2: [other] size = "eleven": must be an integer; correct it, or remove it for the default, "5"`},
		{"[other]\n\nlen = 11", `text:3: [other] len = "11": must be from 1 to 10; correct it, or remove it for the default, "5"`},
		{"[other]\nsize = 99999999999999999999", `is too large a number`},
		{"[other]\nratio = NaN", `[other] ratio = "NaN": must be 0 or more`},
		{"[other]\nratio = 1e999", `must be a number`},
		{"[test]\nflag = maybe", `text:2: [test] flag = "maybe": must be true or false; choose one of them, or remove it for the default, "true"`},
		{"[test]\nflag =", `[test] flag: must be true or false`},
		{"[test]\nchoice = blue", `[test] choice = "blue": must be one of "red", "green"; choose one of them`},
		{"[test]\naddress = 10.0.0.0/8", `[test] address = "10.0.0.0/8": must be an IP address: it does not parse; correct it`},
		{"[test]\nmap = a:1,b", `[test] map = "a:1,b": pair 2 must be written key:value`},
		{"[test]\nmap = a:1,a:2", `pair 2 has the key of an earlier pair`},
		{"[test]\ntext = $nobody", `[test] text = "$nobody": $nobody is not an option; correct the reference, or write $$ for a dollar sign`},
		{"[test]\ntext = ${called}", `refers to itself by way of [test] text`},
		{"[test]\npassword = pa$sword", `text:2: [test] password: a $name in it is not an option`},
		{"[test]\npassword = pa$sword\ntext = $password", `[test] text = "$password": $password: a $name in it`},
		{"[test]\npin = 12x4", `text:2: [test] pin: must be an integer`},
		{"[ml2_type_vlan]\nnetwork_vlan_ranges = physnet1:1:4095", `item 1 must be physical_network or physical_network:low:high: the numbers must rise and be from 1 to 4094`},
		{"[DEFAULT]\nbase_mac = fa:16:3e", `must be a MAC address: it is not of the form fa:16:3e:00:00:00`},
		{"[DEFAULT]\nbind_host = http://x", `must be an IP address or a host name`},
		{"[isospin]\nfeed_listen = 0.0.0.0:1", `must be unix:/path, http://address:port or https://host:port`},
		{"[DEFAULT]\npagination_max_limit = 0", `must be a number, or infinite`},
	} {
		_, err := FromText(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v\nwant %s", c.text, err, c.want)
		}
		if err != nil && (strings.Contains(err.Error(), "sword is") || strings.Contains(err.Error(), "pa$") || strings.Contains(err.Error(), "12x4")) {
			t.Errorf("%q: the error repeats a secret: %v", c.text, err)
		}
	}

	_, err := FromText("[test]\nchoice = blue\nlist = a\nflag = maybe\n")
	var v *ValueError
	if !errors.As(err, &v) || v.File != "text" || v.Line != 2 || v.Section != "test" || v.Key != "choice" || v.Value != "blue" {
		t.Errorf("the first error is %#v", v)
	}
	if strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("want both errors, got %v", err)
	}

	_, err = Load(LoadOptions{Environ: []string{"OS_OTHER__SIZE=0"}})
	if want := `environment variable OS_OTHER__SIZE = "0": must be from 1 to 10`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	for _, o := range []LoadOptions{
		{Files: []string{filepath.Join(dir, "absent.conf")}},
		{Dirs: []string{filepath.Join(dir, "absent")}},
	} {
		_, err := Load(o)
		if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "absent") || !strings.Contains(err.Error(), "create it, or correct --config") {
			t.Errorf("Load(%v) = %v", o, err)
		}
	}
	if _, err := Load(LoadOptions{Files: []string{dir}}); err == nil {
		t.Error("a directory was read as a file")
	}
	bad := write(t, dir, "bad.conf", "[test]\nhunter2\n")
	_, err := Load(LoadOptions{Files: []string{bad}})
	if err == nil || !strings.Contains(err.Error(), bad+":2: there is no") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

func TestReport(t *testing.T) {
	file := write(t, t.TempDir(), "x.conf", `[test]
chioce = hunter2
forgotten = 1
size = 3
zzzzzzzzzzzz = 4
[strange]
a = 1
b = 2
[default]
bind_port = 1
[old]
length = 3
[oslo_messaging_rabbit]
rabbit_password = hunter2
[TEST]
parts = a, idle,b
`)
	var out bytes.Buffer
	log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == "file" {
			return slog.Attr{}
		}
		return a
	}}))
	c, err := Load(LoadOptions{Files: []string{file}, Logger: log, Environ: []string{"OS_OTHER__SIZ=hunter2", "OS_FOO__BAR=1", "OS_OLD__LENGTH=4"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b"}, tParts.Of(c)); diff != "" {
		t.Errorf("a list with an item without effect (-want +got):\n%s", diff)
	}
	want := `level=WARN msg="configuration option is unknown" line=2 section=test option=chioce nearest="[test] choice"
level=INFO msg="configuration option has no effect" line=3 section=test option=forgotten reason="nobody remembers"
level=WARN msg="configuration option is unknown" line=4 section=test option=size nearest="[other] size"
level=WARN msg="configuration option is unknown" line=5 section=test option=zzzzzzzzzzzz
level=INFO msg="configuration section is not used" line=7 section=strange
level=INFO msg="configuration section is not used" line=10 section=default nearest=DEFAULT
level=WARN msg="configuration option has a new name" line=12 section=old option=length use="[other] size"
level=INFO msg="configuration section is not used" line=14 section=oslo_messaging_rabbit
level=INFO msg="configuration value has no effect" line=16 section=TEST option=parts value=idle reason="nobody waits for it"
level=WARN msg="configuration option has a new name" variable=OS_OLD__LENGTH use=OS_OTHER__SIZE
level=WARN msg="configuration option is unknown" variable=OS_OTHER__SIZ nearest=OS_OTHER__SIZE
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestSecretsAreNotShown(t *testing.T) {
	c := parse(t, "[test]\npassword = hunter2\ntext = t\nmulti = a\nmulti = b\n")
	var out bytes.Buffer
	if err := c.Effective(&out); err != nil {
		t.Fatal(err)
	}
	want := "[test]\n# text:4\nmulti = a\n# text:5\nmulti = b\n# text:2\npassword = ***\n# text:3\ntext = t\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("Effective (-want +got):\n%s", diff)
	}
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "config", c)
	fmt.Fprintf(&out, "%v %+v %#v", c, c, c)
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("the secret is in %s", &out)
	}
}

func TestRequired(t *testing.T) {
	c := parse(t, "[test]\ntext = t\n")
	if v, err := tText.Required(c); v != "t" || err != nil {
		t.Errorf("Required = %q, %v", v, err)
	}
	_, err := tSecret.Required(c)
	if want := "option [test] password is not set; set it in text or as OS_TEST__PASSWORD in the environment"; err == nil || err.Error() != want {
		t.Errorf("Required = %v, want %s", err, want)
	}
}

func TestDeclarations(t *testing.T) {
	if again := Int("other", "size", 5, "A size.", Min(1), Max(10), Deprecated("old", "length"), Deprecated("other", "len")); again != tSize {
		t.Error("an equal declaration is another option")
	}
	for name, declare := range map[string]func(){
		"another default": func() { Int("other", "size", 6, "A size.") },
		"another type":    func() { String("other", "size", "5", "A size.") },
		"bad default":     func() { Int("other", "bad", 0, "A number.", Min(1)) },
		"no help":         func() { Int("other", "bad", 0, "") },
		"bounds of text":  func() { String("other", "bad", "", "A text.", Min(1)) },
		"item of a text":  func() { String("other", "bad", "", "A text.", WithoutEffect("x", "y")) },
		"no effect":       func() { String("test", "forgotten", "", "A text.") },
		"effect":          func() { NoEffect("test", "text", "x") },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			declare()
		}()
	}
}

// TestSampleIsTheDefaults takes the comment signs off the sample: every value
// must be valid and be the default.
func TestSampleIsTheDefaults(t *testing.T) {
	var out bytes.Buffer
	if err := Sample(&out); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	options := 0
	for line := range strings.Lines(out.String()) {
		if rest, ok := strings.CutPrefix(line, "#"); ok && rest[0] != ' ' {
			options++
			line = rest
		}
		text.WriteString(line)
	}
	c, err := FromText(text.String())
	if err != nil {
		t.Fatal(err)
	}
	if options < 100 {
		t.Errorf("the sample has %d options", options)
	}
	for _, o := range all() {
		got, err := o.readAny(c)
		if err != nil {
			t.Error(err)
		}
		want, _ := o.readAny(nil)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: the sample says %v, the default is %v", o.define(), got, want)
		}
	}
}

func TestReference(t *testing.T) {
	var out bytes.Buffer
	if err := Reference(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\n## [DEFAULT]\n",
		"\n### `size`\n\nA size.\n\n* Type: integer, from 1 to 10\n* Default: `5`\n* Older name: `[old] length`\n* Older name: `[other] len`\n",
		"* Default: the host name of the machine\n",
		"* Secret: never shown",
		"* Without effect: `idle`, because nobody waits for it\n",
		"| `[DEFAULT] rpc_workers` | the server and its agents need no message broker |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the reference lacks %q", want)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"ab", "", 2}, {"kitten", "sitting", 3}, {"bind_prot", "bind_port", 1}, {"tunel", "tunnel", 1}} {
		if got := distance(c.a, c.b); got != c.want {
			t.Errorf("distance(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// FuzzFromText: no text makes loading panic or hang, and errors have a place.
func FuzzFromText(f *testing.F) {
	f.Add("[DEFAULT]\nstate_path = ${host}/$my_ip\n[ovs]\nlocal_ip = $my_ip\nbridge_mappings = a:b,c:d\n")
	f.Add("[a]\nb=$c$c\nc=$d$d\nd=$b\n[test]\ntext=$a.b")
	f.Add("[test]\nmap = a:b\nlist = ,,\npin = 1\nmulti = \\$\n")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := FromText(text)
		if (c == nil) == (err == nil) {
			t.Fatalf("FromText = %v, %v", c, err)
		}
		var v *ValueError
		if errors.As(err, &v) && (v.Section == "" || v.Key == "" || v.Reason == "" || v.Cure == "") {
			t.Fatalf("error without place, reason or cure: %#v", v)
		}
	})
}
