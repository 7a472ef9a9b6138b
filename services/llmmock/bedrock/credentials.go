package bedrock

import (
	"bufio"
	"io"
	"strings"

	"edgehold.internal/libs/problem"
)

// MaxCredentials is how many access keys a file may have.
const MaxCredentials = 10_000

// ReadCredentials reads a file in the form of the vendor's shared credentials, which its clients read too: sections with
// aws_access_key_id and aws_secret_access_key, in either order. It returns the secrets by id. What is wrong is Invalid with the number
// of the line, and never with the secret.
func ReadCredentials(in io.Reader) (map[string]string, error) {
	secrets := map[string]string{}
	var id, secret, profile string
	from := 0 // line of the section
	end := func() error {
		switch {
		case id == "" && secret == "":
			return nil
		case id == "" || secret == "":
			return problem.Invalidf("credentials", "line %d: [%s] has only one of aws_access_key_id and aws_secret_access_key; it needs both", from, profile)
		case secrets[id] != "" && secrets[id] != secret:
			return problem.Invalidf("credentials", "line %d: [%s] gives the key %s another secret than a section before it; an id has one secret", from, profile, id)
		case len(secrets) == MaxCredentials:
			return problem.Invalidf("credentials", "line %d: there are more than %d keys; give fewer", from, MaxCredentials)
		}
		secrets[id] = secret
		id, secret = "", ""
		return nil
	}
	lines := bufio.NewScanner(in)
	n := 0
	for lines.Scan() {
		n++
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if line[0] == '[' {
			name, rest, closed := strings.Cut(line[1:], "]")
			if !closed || rest != "" {
				return nil, problem.Invalidf("credentials", "line %d: a section is written [name] on a line of its own", n)
			}
			if err := end(); err != nil {
				return nil, err
			}
			profile, from = name, n
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || from == 0 {
			return nil, problem.Invalidf("credentials", "line %d: expected [section] and in it lines of name = value", n)
		}
		switch value = strings.TrimSpace(value); strings.TrimSpace(name) {
		case "aws_access_key_id":
			id = value
		case "aws_secret_access_key":
			secret = value
		}
	}
	if err := lines.Err(); err != nil {
		return nil, problem.Invalidf("credentials", "after line %d: %v", n, err)
	}
	if err := end(); err != nil {
		return nil, err
	}
	if len(secrets) == 0 {
		return nil, problem.Invalidf("credentials", "there is no key in it; it needs a section with aws_access_key_id and aws_secret_access_key")
	}
	return secrets, nil
}
