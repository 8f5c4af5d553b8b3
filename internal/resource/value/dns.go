package value

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// dnsNames checks labels; RFC 1123 section 2.1.
func dnsNames(labels []string) error {
	for _, label := range labels {
		switch {
		case label == "":
			return errors.New("Encountered an empty component")
		case strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-"):
			return fmt.Errorf("Name '%s' must not start or end with a hyphen", label)
		case !dnsLabel(label):
			return fmt.Errorf("Name '%s' must be 1-63 characters long, each of which can only be alphanumeric or a hyphen", label)
		}
	}
	if last := labels[len(labels)-1]; len(labels) > 1 && strings.Trim(last, "0123456789") == "" {
		return fmt.Errorf("TLD '%s' must not be all numeric", last)
	}
	return nil
}

// dnsLabel takes lower-case labels and the keywords that stand for the names
// and IDs of the project and user of a port.
func dnsLabel(label string) bool {
	switch label {
	case "<project_id>", "<project_name>", "<user_name>", "<user_id>":
		return true
	}
	return len(label) <= 63 && !strings.ContainsFunc(label, func(r rune) bool {
		return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-')
	})
}

const fqdnSize = 255

// dnsFormat checks a host or domain name, relative or with the dot at its end
// that makes it absolute. A newline at the end of a label, that neutron-lib
// lets by, is refused: names get into files of one name a line.
func dnsFormat(name string, limit int) string {
	if name == "" {
		return ""
	}
	trimmed := strings.TrimSuffix(name, ".")
	var err error
	if utf8.RuneCountInString(trimmed) > limit {
		err = fmt.Errorf("'%s' exceeds the %d character FQDN limit", trimmed, limit)
	} else {
		err = dnsNames(strings.Split(trimmed, "."))
	}
	if err != nil {
		return fmt.Sprintf("'%s' not a valid PQDN or FQDN. Reason: %s", name, err)
	}
	return ""
}

// dnsLimit reads the argument max_len of DNS names.
func dnsLimit(args any) (int, error) {
	limit, err := maxLength(args)
	if limit < 0 {
		limit = fqdnSize
	}
	return limit, err
}

func dnsHostName(c *Checker, args any, v any) (string, error) {
	limit, err := dnsLimit(args)
	if err != nil || !truthy(v) {
		return "", err
	}
	name, ok := v.(string)
	if !ok {
		return notString(v), nil
	}
	if reason := dnsFormat(name, limit); reason != "" {
		return reason, nil
	}
	configured := c.DNSDomain
	if configured == "" {
		configured = "openstacklocal"
	}
	domain := strings.TrimSuffix(configured, ".") + "."
	if domain == "openstacklocal." {
		return "", nil
	}
	higher := "." + domain
	if !strings.HasSuffix(name, ".") {
		if len(name)+len(higher) > fqdnSize {
			return fmt.Sprintf("The dns_name passed is a PQDN and its size is '%d'. The dns_domain option in "+
				"neutron.conf is set to %s, with a length of '%d'. When the two are concatenated to form a FQDN "+
				"(with a '.' at the end), the resulting length exceeds the maximum size of '%d'",
				len(name), configured, len(higher), fqdnSize), nil
		}
		return "", nil
	}
	if len(name) <= len(higher) || !strings.HasSuffix(name, higher) {
		return fmt.Sprintf("The dns_name passed is a FQDN. Its higher level labels must be equal to the dns_domain "+
			"option in neutron.conf, that has been set to '%[1]s'. It must also include one or more valid DNS labels "+
			"to the left of '%[1]s'", configured), nil
	}
	return "", nil
}

func floatingIPDNSName(_ *Checker, args any, v any) (string, error) {
	limit, err := dnsLimit(args)
	if err != nil {
		return "", err
	}
	name, ok := v.(string)
	switch {
	case !ok:
		return notString(v), nil
	case strings.HasSuffix(name, "."):
		return fmt.Sprintf("'%s' is a FQDN. It should be a relative domain name", name), nil
	}
	if reason := dnsFormat(name, limit); reason != "" {
		return reason, nil
	}
	if len(name) > limit-3 && name != "" {
		return fmt.Sprintf("'%s' contains %d characters. Adding a domain name will cause it to exceed the maximum "+
			"length of a FQDN of '%d'", name, len(name), limit), nil
	}
	return "", nil
}

func dnsDomainName(_ *Checker, args any, v any) (string, error) {
	limit, err := dnsLimit(args)
	if err != nil {
		return "", err
	}
	name, ok := v.(string)
	switch {
	case !ok:
		return notString(v), nil
	case name == "":
		return "", nil
	case !strings.HasSuffix(name, "."):
		return fmt.Sprintf("'%s' is not a FQDN", name), nil
	}
	if reason := dnsFormat(name, limit); reason != "" {
		return reason, nil
	}
	if len(name) > limit-2 {
		return fmt.Sprintf("'%s' contains %d characters. Adding a sub-domain will cause it to exceed the maximum "+
			"length of a FQDN of '%d'", name, len(name), limit), nil
	}
	return "", nil
}
