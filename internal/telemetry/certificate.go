package telemetry

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// ReadCertificate reads the first certificate of a PEM file.
func ReadCertificate(file string) (*x509.Certificate, error) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fmt.Errorf("%s: there is no certificate", file)
		}
		if block.Type == "CERTIFICATE" {
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			return c, nil
		}
	}
}

// NewCertificateCollector tells when the certificates in files end, by what
// they are for; empty file names are left out. The files are read when asked.
func NewCertificateCollector(files map[string]string) prometheus.Collector {
	return &certificateCollector{files: files, desc: prometheus.NewDesc("isospin_certificate_expiry_timestamp_seconds",
		"When a certificate ends, in Unix seconds, by what it is for; 0 when it cannot be read.", []string{"use"}, nil)}
}

type certificateCollector struct {
	files map[string]string
	desc  *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *certificateCollector) Describe(out chan<- *prometheus.Desc) { out <- c.desc }

// Collect implements prometheus.Collector.
func (c *certificateCollector) Collect(out chan<- prometheus.Metric) {
	for use, file := range c.files {
		if file == "" {
			continue
		}
		end := time.Unix(0, 0)
		if certificate, err := ReadCertificate(file); err == nil {
			end = certificate.NotAfter
		}
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, float64(end.Unix()), use)
	}
}
