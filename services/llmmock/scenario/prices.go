package scenario

import (
	_ "embed"
	"regexp"
	"time"

	"go.yaml.in/yaml/v3"

	"edgehold.internal/services/llmmock"
)

//go:embed prices.yaml
var priceFile []byte

// Prices is the table that is compiled in: list prices, with their source and date.
func Prices() llmmock.Prices {
	prices, err := ReadPrices("prices.yaml", priceFile)
	if err != nil {
		panic(err)
	}
	return prices
}

// ReadPrices reads a price table. The error is a *Problems.
func ReadPrices(file string, data []byte) (llmmock.Prices, error) {
	var problems Problems
	var prices llmmock.Prices
	r := &reader{file: file, problems: &problems}
	r.documents(data, func(root *yaml.Node) {
		before := r.errors()
		doc := pricesCodec.read(r, "", root)
		for i := range doc.models {
			p := llmmock.Price{
				Vendor: doc.vendor, Model: doc.models[i].model, Source: doc.source, Date: doc.date,
				Input: llmmock.Dollars(doc.models[i].input), Cached: llmmock.Dollars(doc.models[i].cached),
				CacheWrite: llmmock.Dollars(doc.models[i].cacheWrite), Output: llmmock.Dollars(doc.models[i].output),
			}
			// A vendor without a price for the cache charges as for any input.
			if !doc.models[i].hasCached {
				p.Cached = p.Input
			}
			if !doc.models[i].hasCacheWrite {
				p.CacheWrite = p.Input
			}
			if err := p.Validate(); err != nil && r.errors() == before {
				r.refused(root, err)
			}
			prices = append(prices, p)
		}
	})
	if err := problems.or(); err != nil {
		return nil, err
	}
	return prices, nil
}

// priceDoc is a document of a table: models whose prices were read in one place.
type priceDoc struct {
	vendor       llmmock.Vendor
	source, date string
	models       []priceRow
}

type priceRow struct {
	model                             string
	input, cached, cacheWrite, output float64
	hasCached, hasCacheWrite          bool
}

var dollars = number(0, 1e6)

// given is a field that remembers that it was there.
func given[S any](f field[S], mark func(*S)) field[S] {
	read := f.read
	f.read = func(r *reader, path string, n *yaml.Node, into *S) {
		read(r, path, n, into)
		mark(into)
	}
	return f
}

var pricesCodec = mapping(nil,
	member("vendor", "Whose prices; any vendor's if it is left out.", func(d *priceDoc) *llmmock.Vendor { return &d.vendor }, vendors),
	needed(member("source", "Where they were read.", func(d *priceDoc) *string { return &d.source }, text(maxMessage))),
	needed(member("date", "When, as 2026-01-31.", func(d *priceDoc) *string { return &d.date }, date())),
	needed(member("models", "The first that fits a model holds.", func(d *priceDoc) *[]priceRow { return &d.models }, list(10_000, mapping(nil,
		needed(member("model", "The model, * for any characters.", func(p *priceRow) *string { return &p.model }, text(llmmock.MaxPattern))),
		needed(member("input", "US dollars for a million tokens of input.", func(p *priceRow) *float64 { return &p.input }, dollars)),
		given(member("cached", "For those that were read from a cache; as input if it is left out.", func(p *priceRow) *float64 { return &p.cached }, dollars),
			func(p *priceRow) { p.hasCached = true }),
		given(member("cacheWrite", "For those that were written to a cache; as input if it is left out.", func(p *priceRow) *float64 { return &p.cacheWrite }, dollars),
			func(p *priceRow) { p.hasCacheWrite = true }),
		needed(member("output", "For a million tokens of output.", func(p *priceRow) *float64 { return &p.output }, dollars)),
	)))),
)

var isDate = regexp.MustCompile(`^\d{4}-\d{2}-\d{2}$`)

func date() codec[string] {
	c := text(len(time.DateOnly))
	read := c.read
	c.read = func(r *reader, path string, n *yaml.Node) string {
		s := read(r, path, n)
		if _, err := time.Parse(time.DateOnly, s); s != "" && (err != nil || !isDate.MatchString(s)) {
			r.fail(path, n, "%s is no date; use the form 2026-01-31", quote(s))
		}
		return s
	}
	return c
}
