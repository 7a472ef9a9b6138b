package llmmock

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"

	"edgehold.internal/libs/problem"
)

// Money is in billionths of a US dollar: prices are of a million tokens, and one token's is no whole number of anything larger.
type Money int64

// Dollar is one.
const Dollar Money = 1e9

// Dollars is Money from a number such as 0.15, to the nearest billionth.
func Dollars(f float64) Money { return Money(math.Round(f * float64(Dollar))) }

// String is in dollars, to the cent, and as far as it takes below one.
func (m Money) String() string {
	sign, n := "", uint64(m)
	if m < 0 {
		sign, n = "-", -n
	}
	whole, rest := n/uint64(Dollar), n%uint64(Dollar)
	digits := fmt.Sprintf("%09d", rest)
	if whole > 0 {
		// Rounded: nobody reads the rest of it beside whole dollars.
		if cents := (rest + 5_000_000) / 10_000_000; cents == 100 {
			whole, digits = whole+1, "00"
		} else {
			digits = fmt.Sprintf("%02d", cents)
		}
	} else if digits = strings.TrimRight(digits, "0"); len(digits) < 2 {
		digits += "00"[len(digits):]
	}
	return fmt.Sprintf("%s$%d.%s", sign, whole, digits)
}

// Price of a model, for a million tokens of each kind.
type Price struct {
	// Vendor whose price it is; empty for any.
	Vendor Vendor
	// Model is a pattern with * for any characters, such as gpt-4o-mini*.
	Model                             string
	Input, Cached, CacheWrite, Output Money
	// Source and Date (2026-01-31) say where it was read, and when.
	Source, Date string
}

// MaxPrice of a million tokens.
const MaxPrice = 1_000_000 * Dollar

// Validate says Invalid with the field that cannot be.
func (p *Price) Validate() error {
	if err := validPatterns("model", []string{p.Model}); err != nil {
		return problem.Invalidf("model", "%q is no pattern of a model's name", cut(p.Model))
	}
	if p.Vendor != "" {
		if err := oneOf("vendor", p.Vendor, OpenAI, Azure, Anthropic, Gemini, Bedrock); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		field string
		m     Money
	}{{"input", p.Input}, {"cached", p.Cached}, {"cacheWrite", p.CacheWrite}, {"output", p.Output}} {
		if f.m < 0 || f.m > MaxPrice {
			return problem.Invalidf(f.field, "%s for a million tokens is not allowed; use $0.00 to %s", f.m, MaxPrice)
		}
	}
	if p.Source == "" {
		return problem.Invalidf("source", "is empty; say where the price was read")
	}
	if _, err := time.Parse(time.DateOnly, p.Date); err != nil {
		return problem.Invalidf("date", "%q is no date; use the form 2026-01-31", cut(p.Date))
	}
	return nil
}

// Cost of some tokens. Each kind is rounded to the nearest billionth of a dollar.
func (p *Price) Cost(u Usage) Money {
	return p.Input.million(u.Input-u.Cached-u.CacheWrite) + p.Cached.million(u.Cached) + p.CacheWrite.million(u.CacheWrite) + p.Output.million(u.Output)
}

// million is the price of n tokens at m a million.
func (m Money) million(n int) Money {
	if n <= 0 || m <= 0 {
		return 0
	}
	high, low := bits.Mul64(uint64(m), uint64(n))
	low, carry := bits.Add64(low, 500_000, 0)
	high += carry
	if high >= 1_000_000 {
		return math.MaxInt64
	}
	q, _ := bits.Div64(high, low, 1_000_000)
	return Money(min(q, math.MaxInt64))
}

// Prices in order: the first that fits holds.
type Prices []Price

// Of is the price of a model, and false when the table does not have it: a price that is not known is not zero.
func (ps Prices) Of(v Vendor, model string) (Price, bool) {
	for _, p := range ps {
		if pattern := newPattern(p.Model); (p.Vendor == "" || p.Vendor == v) && pattern.match(model) {
			return p, true
		}
	}
	return Price{}, false
}

// Use is what was asked of one model.
type Use struct {
	Vendor   Vendor
	Model    string
	Requests int
	Usage    Usage
	// Price by the table, and Cost at that; Priced is false when the table does not have the model.
	Price  Price
	Cost   Money
	Priced bool
}

// MaxModels that a Meter tells apart; what comes after them counts as OtherModels of its vendor.
const MaxModels = 500

// OtherModels is the name of what a Meter does not tell apart.
const OtherModels = "(other)"

// Meter adds up tokens by model. The zero value is ready; it is safe for concurrent use.
type Meter struct {
	mu   sync.Mutex
	used map[model]*use
}

type model struct {
	vendor Vendor
	name   string
}

type use struct {
	requests int
	usage    Usage
}

// Add counts a request and its tokens.
func (m *Meter) Add(v Vendor, name string, u Usage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used == nil {
		m.used = make(map[model]*use)
	}
	name = cut(name)
	sum := m.used[model{v, name}]
	if sum == nil && len(m.used) >= MaxModels {
		name = OtherModels
		sum = m.used[model{v, name}]
	}
	if sum == nil {
		sum = new(use)
		m.used[model{v, strings.Clone(name)}] = sum
	}
	sum.requests++
	sum.usage.Input += u.Input
	sum.usage.Cached += u.Cached
	sum.usage.CacheWrite += u.CacheWrite
	sum.usage.Output += u.Output
	sum.usage.Reasoning += u.Reasoning
}

// Observe counts what an exchange used that has ended. Of an answer that was not sent to its end, the tokens that were.
func (m *Meter) Observe(e Event) {
	x := e.Exchange
	if e.Kind != Ended {
		return
	}
	u := x.Usage()
	if u.Total() == 0 {
		return
	}
	if e.End != Complete {
		u.Output = min(u.Output, e.Tokens)
		u.Reasoning = min(u.Reasoning, u.Output)
	}
	m.Add(x.Vendor, x.Model, u)
}

// Uses are all models' so far, by vendor and name, at the table's prices.
func (m *Meter) Uses(prices Prices) []Use {
	m.mu.Lock()
	uses := make([]Use, 0, len(m.used))
	for k, u := range m.used {
		uses = append(uses, Use{Vendor: k.vendor, Model: k.name, Requests: u.requests, Usage: u.usage})
	}
	m.mu.Unlock()
	for i := range uses {
		u := &uses[i]
		if u.Price, u.Priced = prices.Of(u.Vendor, u.Model); u.Priced {
			u.Cost = u.Price.Cost(u.Usage)
		}
	}
	slices.SortFunc(uses, func(a, b Use) int {
		if c := strings.Compare(string(a.Vendor), string(b.Vendor)); c != 0 {
			return c
		}
		return strings.Compare(a.Model, b.Model)
	})
	return uses
}

// Mocked is what it costs to run the mock instead.
type Mocked struct {
	// Time that it ran for, and what an hour of its machines costs.
	Time time.Duration
	Hour Money
	// Runs in a year like this one; 0 for 1.
	Runs float64
}

// Savings are a formula with its inputs, so that whoever doubts the result can put in others.
type Savings struct {
	Live, Mocked, Saved Money
	// Year is Saved times the runs in a year.
	Year Money
	// Formula in the names of Inputs.
	Formula string
	Inputs  []Input
	// Unpriced are the models that the table does not have; they count as nothing.
	Unpriced []string
}

// Input of a formula.
type Input struct {
	Name, Value, Unit string
	// Source of a price; empty for what was measured or given.
	Source string
}

// Save compares what was used at the vendors' prices with what it cost to run the mock.
func Save(uses []Use, by Mocked) Savings {
	s := Savings{Formula: "year = runs × (Σ over models ((input − cached − cache_write) × price_input + cached × price_cached + cache_write × price_cache_write + output × price_output) ÷ 1,000,000 − hours × price_hour)"}
	add := func(name, value, unit, source string) { s.Inputs = append(s.Inputs, Input{name, value, unit, source}) }
	for i := range uses {
		u := &uses[i]
		of := fmt.Sprintf("[%s %s]", u.Vendor, u.Model)
		if !u.Priced {
			s.Unpriced = append(s.Unpriced, fmt.Sprintf("%s %s", u.Vendor, u.Model))
			continue
		}
		s.Live += u.Cost
		for _, k := range []struct {
			name  string
			n     int
			price Money
		}{{"input", u.Usage.Input, u.Price.Input}, {"cached", u.Usage.Cached, u.Price.Cached}, {"cache_write", u.Usage.CacheWrite, u.Price.CacheWrite}, {"output", u.Usage.Output, u.Price.Output}} {
			if k.n == 0 && k.name != "input" && k.name != "output" {
				continue
			}
			add(k.name+of, fmt.Sprint(k.n), "tokens", "")
			add("price_"+k.name+of, k.price.String(), "per million tokens", fmt.Sprintf("%s, %s", u.Price.Source, u.Price.Date))
		}
	}
	runs := by.Runs
	if runs <= 0 {
		runs = 1
	}
	s.Mocked = Money(math.Round(float64(by.Hour) * by.Time.Hours()))
	s.Saved = s.Live - s.Mocked
	s.Year = Money(max(min(float64(s.Saved)*runs, math.MaxInt64/2), math.MinInt64/2))
	add("hours", fmt.Sprintf("%.6g", by.Time.Hours()), "h", "")
	add("price_hour", by.Hour.String(), "per hour", "")
	add("runs", fmt.Sprintf("%g", runs), "per year", "")
	return s
}
