package bedrock

import (
	"maps"
	"strings"
	"testing"

	"edgehold.internal/libs/problem"
)

func TestReadCredentials(t *testing.T) {
	got, err := ReadCredentials(strings.NewReader("# ours\n[default]\naws_secret_access_key = se=cret/1\naws_access_key_id=AKIA1\nregion = eu-central-1\n\n[profile ci]\n; of the pipeline\naws_access_key_id = AKIA2\n" +
		"aws_secret_access_key = two\naws_session_token = x\n[empty]\n[again]\naws_access_key_id = AKIA2\naws_secret_access_key = two\n"))
	if want := map[string]string{"AKIA1": "se=cret/1", "AKIA2": "two"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("%v %v, want %v", got, err, want)
	}
	for text, says := range map[string]string{
		"":                             "no key",
		"[a]\naws_access_key_id = x\n": "line 1: [a] has only one",
		"\n[a]\naws_secret_access_key = hidden\n[b]\n": "line 2: [a] has only one",
		"aws_access_key_id = x":                        "line 1: expected [section]",
		"[a]\nnonsense":                                "line 2: expected [section]",
		"[a\n":                                         "line 1: a section is written [name]",
		"[a] b\n":                                      "line 1: a section is written [name]",
		"[a]\naws_access_key_id=x\naws_secret_access_key=hidden\n[b]\naws_access_key_id=x\naws_secret_access_key=2\n": "line 4: [b] gives the key x another secret",
		"[a]\n" + strings.Repeat("x", 70_000): "after line 1",
	} {
		_, err := ReadCredentials(strings.NewReader(text))
		if problem.KindOf(err) != problem.Invalid || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%.40q: %v, want %s", text, err, says)
		}
	}
}

func FuzzReadCredentials(f *testing.F) {
	f.Add("[default]\naws_access_key_id = AKIA1\naws_secret_access_key = s\n")
	f.Add("[a]\n[b]\n=\n;\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ReadCredentials(strings.NewReader(text))
		if (err == nil) == (len(got) == 0) || err != nil && problem.KindOf(err) != problem.Invalid {
			t.Fatalf("%v %v", got, err)
		}
		for id, secret := range got {
			if !strings.Contains(text, id) || !strings.Contains(text, secret) {
				t.Fatalf("%q with %q is not in it", id, secret)
			}
		}
	})
}
