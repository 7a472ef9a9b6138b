// Command generate makes of the vendors' OpenAPI documents in spec/data/source, and of our supplements to them, the compact form
// that package spec embeds. Run it with go generate in spec.
package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// documents are what is made of what. Later sources add paths and schemas to the first.
var documents = []struct {
	out, base string
	sources   []string
}{
	{"openai.spec.gz", "/v1", []string{"openai-openapi-2026-08-21.yaml.gz", "openai-supplement.yaml"}},
	{"anthropic.spec.gz", "", []string{"anthropic-mock-spec-v1.84.0.json.gz", "anthropic-supplement.yaml"}},
}

func main() {
	dir := flag.String("data", "data", "directory with source/, where the results go")
	flag.Parse()
	for _, d := range documents {
		b, err := build(*dir, d.base, d.sources)
		if err == nil {
			err = os.WriteFile(filepath.Join(*dir, d.out), b, 0o644)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "generate: %s: %v\n", d.out, err)
			os.Exit(1)
		}
	}
}

// build is the compact form of the sources, compressed. The same sources give the same bytes.
func build(dir, base string, sources []string) ([]byte, error) {
	var whole *object
	for _, s := range sources {
		text, err := read(filepath.Join(dir, "source", s))
		if err != nil {
			return nil, err
		}
		v, err := decode(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
		doc, ok := v.(*object)
		if !ok {
			return nil, fmt.Errorf("%s: is no object", s)
		}
		if whole == nil {
			whole = doc
			continue
		}
		if err := join(whole, doc); err != nil {
			return nil, fmt.Errorf("%s: %w", s, err)
		}
	}
	text, err := compile(whole, base)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func read(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, ".gz") {
		return b, err
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// join adds the paths and schemas of a supplement. Those schemas that its x-newer names it replaces, as vendors' clients have come to
// send more than the document knows. To those that its x-more names it adds properties, and says anew which of them are required.
func join(to, from *object) error {
	for _, path := range from.obj("paths").keys {
		item := from.obj("paths").obj(path)
		have := to.obj("paths").obj(path)
		if have == nil {
			to.obj("paths").set(path, item)
			continue
		}
		for _, method := range item.keys {
			if have.get(method) != nil {
				return fmt.Errorf("%s %s is in the document that it supplements", method, path)
			}
			have.set(method, item.get(method))
		}
	}
	schemas := to.obj("components").obj("schemas")
	add := from.obj("components").obj("schemas")
	if add == nil {
		return nil
	}
	newer, more := from.list("x-newer"), from.list("x-more")
	for _, name := range add.keys {
		switch have := schemas.obj(name); {
		case slices.Contains(more, any(name)):
			if err := extend(have, add.obj(name)); err != nil {
				return fmt.Errorf("schema %s: %w", name, err)
			}
		case have != nil && !slices.Contains(newer, any(name)):
			return fmt.Errorf("schema %s is in the document that it supplements, and neither x-newer nor x-more names it", name)
		default:
			schemas.set(name, add.get(name))
		}
	}
	return nil
}

// extend adds properties to a schema.
func extend(to, from *object) error {
	properties := to.obj("properties")
	if properties == nil {
		return errors.New("is no schema with properties of the document that it supplements")
	}
	if more := from.obj("properties"); more != nil {
		for _, name := range more.keys {
			if properties.get(name) != nil {
				return fmt.Errorf("property %s is in the document that it supplements", name)
			}
			properties.set(name, more.get(name))
		}
	}
	if required := from.get("required"); required != nil {
		to.set("required", required)
	}
	return nil
}

func line(b *bytes.Buffer, v any) error {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	return e.Encode(v) // with the newline that ends it
}
