package policy

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"unicode"
)

// The language (oslo.policy):
//
//	expression = check | "not" expression | expression "and" expression
//	           | expression "or" expression | "(" expression ")"
//	check      = "!" | "@" | kind ":" match
//
// not binds closer than and, and closer than or. Checks are separated by white
// space; an expression without anything is true.

// maxDepth bounds how deep an expression nests.
const maxDepth = 64

// errTrailing is an expression that goes on where it should have ended.
var errTrailing = errors.New(`there must be "and" or "or" between two checks`)

type tokenKind int

const (
	end tokenKind = iota
	word
	opening
	closing
	not
	and
	or
)

type token struct {
	kind tokenKind
	text string
}

// tokens splits as oslo.policy does: at white space, with parentheses taken
// off the ends of words only, since matches hold some of their own. A quoted
// literal may hold white space.
func tokens(text string) ([]token, error) {
	var list []token
	rest := strings.TrimSpace(text)
	for rest != "" {
		for strings.HasPrefix(rest, "(") {
			list = append(list, token{opening, "("})
			rest = strings.TrimLeftFunc(rest[1:], unicode.IsSpace)
		}
		n := 0
		if rest != "" && (rest[0] == '\'' || rest[0] == '"') {
			close := strings.IndexByte(rest[1:], rest[0])
			if close < 0 {
				return nil, fmt.Errorf("the quote before %q is not closed", rest[1:])
			}
			n = close + 2
		}
		if i := strings.IndexFunc(rest[n:], unicode.IsSpace); i >= 0 {
			n += i
		} else {
			n = len(rest)
		}
		body := strings.TrimRight(rest[:n], ")")
		closers := n - len(body)
		rest = strings.TrimLeftFunc(rest[n:], unicode.IsSpace)
		switch strings.ToLower(body) {
		case "":
		case "not":
			list = append(list, token{not, body})
		case "and":
			list = append(list, token{and, body})
		case "or":
			list = append(list, token{or, body})
		default:
			list = append(list, token{word, body})
		}
		for range closers {
			list = append(list, token{closing, ")"})
		}
	}
	return list, nil
}

type parser struct {
	tokens []token
	depth  int
}

func (p *parser) peek() token {
	if len(p.tokens) == 0 {
		return token{end, ""}
	}
	return p.tokens[0]
}

func (p *parser) next() token {
	t := p.peek()
	if len(p.tokens) > 0 {
		p.tokens = p.tokens[1:]
	}
	return t
}

// parse compiles an expression; its rule: checks are not linked yet.
func parse(text string) (check, error) {
	if text == "" {
		return constant(true), nil
	}
	list, err := tokens(text)
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, errors.New(`there is only white space; write "" for always, "!" for never`)
	}
	p := &parser{tokens: list}
	c, err := p.expression(0)
	if err != nil {
		return nil, err
	}
	switch t := p.peek(); t.kind {
	case end:
		return c, nil
	case closing:
		return nil, errors.New(`there is a ")" without a "("`)
	default:
		return nil, errTrailing
	}
}

// expression parses what binds at least as close as least.
func (p *parser) expression(least int) (check, error) {
	if p.depth++; p.depth > maxDepth {
		return nil, fmt.Errorf("it nests deeper than %d levels", maxDepth)
	}
	defer func() { p.depth-- }()
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	for {
		binds := 0
		switch p.peek().kind {
		case or:
			binds = 1
		case and:
			binds = 2
		}
		if binds == 0 || binds <= least {
			return left, nil
		}
		operator := p.next()
		right, err := p.expression(binds)
		if err != nil {
			return nil, err
		}
		left = join(operator.kind, left, right)
	}
}

func (p *parser) operand() (check, error) {
	switch t := p.next(); t.kind {
	case word:
		return parseCheck(t.text)
	case not:
		c, err := p.expression(2)
		if err != nil {
			return nil, err
		}
		return &negation{c}, nil
	case opening:
		c, err := p.expression(0)
		if err != nil {
			return nil, err
		}
		if p.next().kind != closing {
			return nil, errors.New(`a ")" is missing`)
		}
		return c, nil
	case end:
		return nil, errors.New("it ends where a check should be")
	default:
		return nil, fmt.Errorf("there is %q where a check should be", t.text)
	}
}

func join(operator tokenKind, left, right check) check {
	if operator == and {
		if l, ok := left.(*conjunction); ok {
			l.checks = append(l.checks, right)
			return l
		}
		return &conjunction{[]check{left, right}}
	}
	if l, ok := left.(*disjunction); ok {
		l.checks = append(l.checks, right)
		return l
	}
	return &disjunction{[]check{left, right}}
}

var parameter = regexp.MustCompile(`^%\(([^()]+)\)s$`)

func parseCheck(text string) (check, error) {
	switch text {
	case "@":
		return constant(true), nil
	case "!":
		return constant(false), nil
	}
	kind, match, ok := cutKind(text)
	if !ok {
		return nil, fmt.Errorf("%q is no check: it must be kind:match, such as role:member", text)
	}
	switch kind {
	case "http", "https":
		return nil, fmt.Errorf("%q: %s: checks are not supported, since every decision would wait for another server", text, kind)
	case "rule":
		return &reference{name: match}, nil
	case "field":
		return parseField(text, match)
	}
	template, err := parseTemplate(match)
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	switch kind {
	case "role":
		return &role{template: template, text: strings.ToLower(match)}, nil
	case "project_id", "tenant_id":
		found := parameter.FindStringSubmatch(match)
		if found == nil {
			return nil, fmt.Errorf("%q: the match must be %%(name)s", text)
		}
		return newOwner(found[1]), nil
	}
	if literal, ok := parseLiteral(kind); ok {
		return &generic{literal: &literal, template: template}, nil
	}
	if credentials[kind] == nil {
		return nil, fmt.Errorf("%q: there is no kind of check and nothing known of callers that is called %q", text, kind)
	}
	return &generic{credential: credentials[kind], template: template}, nil
}

// cutKind splits kind:match; a quoted kind may hold colons.
func cutKind(text string) (kind, match string, ok bool) {
	if text != "" && (text[0] == '\'' || text[0] == '"') {
		if close := strings.IndexByte(text[1:], text[0]); close >= 0 && strings.HasPrefix(text[close+2:], ":") {
			return text[:close+2], text[close+3:], true
		}
		return "", "", false
	}
	kind, match, ok = strings.Cut(text, ":")
	return kind, match, ok && kind != ""
}

// parseLiteral reads a Python literal, as its str().
func parseLiteral(kind string) (string, bool) {
	switch kind {
	case "True", "False", "None":
		return kind, true
	}
	if kind[0] == '\'' || kind[0] == '"' {
		return kind[1 : len(kind)-1], true
	}
	if n, err := strconv.ParseInt(kind, 10, 64); err == nil {
		return strconv.FormatInt(n, 10), true
	}
	return "", false
}

// template is text with %(name)s in it.
type template []part

type part struct {
	text      string
	parameter bool
}

func parseTemplate(text string) (template, error) {
	var list template
	add := func(s string) {
		if n := len(list); n > 0 && !list[n-1].parameter {
			list[n-1].text += s
		} else if s != "" {
			list = append(list, part{text: s})
		}
	}
	for {
		before, after, found := strings.Cut(text, "%")
		add(before)
		if !found {
			return list, nil
		}
		if strings.HasPrefix(after, "%") {
			add("%")
			text = after[1:]
			continue
		}
		name, rest, closed := strings.Cut(after, ")s")
		if !strings.HasPrefix(name, "(") || !closed || len(name) < 2 || strings.Contains(name, "%") {
			return nil, errors.New(`a "%" must begin %(name)s; write %% for the sign itself`)
		}
		list = append(list, part{text: name[1:], parameter: true})
		text = rest
	}
}

// fixed tells whether nothing has to be filled in.
func (t template) fixed() bool { return len(t) == 0 || len(t) == 1 && !t[0].parameter }
