package spec

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/spec/internal/form"
)

// Failure is the violation in the words and with the codes of a vendor.
func (v Violation) Failure(vendor llmmock.Vendor) *llmmock.Failure {
	f := &llmmock.Failure{Status: http.StatusBadRequest, Reason: llmmock.BadRequest, Field: v.Field}
	if vendor == llmmock.Anthropic {
		f.Message = v.anthropic()
	} else {
		f.Message, f.Code = v.openai()
	}
	return f
}

// String is the violation for people.
func (v Violation) String() string { m, _ := v.openai(); return m }

// plain are the names of kinds, as OpenAI puts them.
func plain(types uint8) []string {
	var l []string
	for _, k := range []struct {
		bit  uint8
		name string
	}{{form.String, "a string"}, {form.Array, "an array"}, {form.Object, "an object"}, {form.Number, "a decimal"}, {form.Int, "an integer"},
		{form.Bool, "a boolean"}, {form.Null, "null"}} {
		if types&k.bit != 0 && (k.bit != form.Int || types&form.Number == 0) {
			l = append(l, k.name)
		}
	}
	return l
}

func either(l []string) string {
	switch len(l) {
	case 0:
		return "something else"
	case 1:
		return l[0]
	}
	l = append([]string(nil), l...)
	for i := range l[:len(l)-1] {
		if i > 0 {
			l[i] = strings.TrimPrefix(strings.TrimPrefix(l[i], "an "), "a ")
		}
	}
	last := strings.TrimPrefix(strings.TrimPrefix(l[len(l)-1], "an "), "a ")
	return "one of " + strings.Join(l[:len(l)-1], ", ") + " or " + last
}

// listed is at most so many values of an enumeration in quotes, joined with a word before the last.
func listed(l []string, word string) string {
	const most = 40
	more := ""
	if len(l) > most {
		more = fmt.Sprintf(" and %d more", len(l)-most)
		l = l[:most]
	}
	q := make([]string, len(l))
	for i, s := range l {
		q[i] = "'" + s + "'"
	}
	switch len(q) {
	case 0:
		return "none"
	case 1:
		return q[0]
	case 2:
		return q[0] + " " + word + " " + q[1]
	}
	comma := ", "
	if word == "or" {
		return strings.Join(q[:len(q)-1], comma) + " or " + q[len(q)-1] + more
	}
	return strings.Join(q[:len(q)-1], comma) + ", " + word + " " + q[len(q)-1] + more
}

func (v Violation) limit() string {
	if len(v.Allowed) == 0 {
		return "0"
	}
	return v.Allowed[0]
}

// openai is the message and the code.
func (v Violation) openai() (message, code string) {
	field := v.Field
	switch v.Fault {
	case NotJSON:
		return "We could not parse the JSON body of your request.", ""
	case TooDeep:
		return "We could not parse the JSON body of your request: it is nested too deeply.", ""
	case TooComplex:
		return "The request is too complex to be checked.", ""
	case Missing:
		return fmt.Sprintf("Missing required parameter: '%s'.", field), "missing_required_parameter"
	case WrongType:
		got := either(plain(v.kind))
		if v.kind == form.Int && v.types&form.Number == 0 {
			got = "an integer"
		}
		return fmt.Sprintf("Invalid type for '%s': expected %s, but got %s instead.", field, either(plain(v.types)), got), "invalid_type"
	case NotAllowed:
		if len(v.Allowed) == 1 {
			return fmt.Sprintf("Invalid value: '%s'. Value must be %s.", v.Got, listed(v.Allowed, "and")), "invalid_value"
		}
		return fmt.Sprintf("Invalid value: '%s'. Supported values are: %s.", v.Got, listed(v.Allowed, "and")), "invalid_value"
	case Unknown:
		return fmt.Sprintf("Unknown parameter: '%s'.", field), "unknown_parameter"
	case TooSmall, TooLarge:
		kind, word, side := "integer", "minimum", "below_min"
		if v.kind == form.Number {
			kind = "decimal"
		}
		if v.Fault == TooLarge {
			word, side = "maximum", "above_max"
		}
		rel := ">="
		if len(v.Allowed) > 1 {
			rel = v.Allowed[1]
		}
		return fmt.Sprintf("Invalid '%s': %s %s %s value. Expected a value %s %s, but got %s instead.", field, kind,
			map[bool]string{true: "above", false: "below"}[v.Fault == TooLarge], word, rel, v.limit(), v.Got), kind + "_" + side + "_value"
	case TooShort, TooLong, TooFew, TooMany:
		return v.size()
	case WrongFormat:
		return fmt.Sprintf("Invalid '%s': '%s'. Expected a string that matches '%s'.", field, v.Got, v.limit()), "invalid_value"
	}
	return fmt.Sprintf("Invalid value for '%s'.", field), "invalid_value"
}

func (v Violation) size() (message, code string) {
	what, article := "string", "a"
	switch v.kind {
	case form.Array:
		what, article = "array", "an"
	case form.Object:
		what, article = "object", "an"
	}
	got := fmt.Sprintf("%s %s with length %s", article, what, v.Got)
	most := v.Fault == TooLong || v.Fault == TooMany
	if v.kind == form.Object {
		n := v.Got + " properties"
		if v.Got == "1" {
			n = "1 property"
		}
		if most {
			return fmt.Sprintf("Invalid '%s': too many properties. Expected an object with at most %s properties, but got an object with %s instead.",
				v.Field, v.limit(), n), "object_above_max_properties"
		}
		return fmt.Sprintf("Invalid '%s': not enough properties. Expected an object with at least %s properties, but got an object with %s instead.",
			v.Field, v.limit(), n), "object_below_min_properties"
	}
	if most {
		return fmt.Sprintf("Invalid '%s': %s too long. Expected %s %s with maximum length %s, but got %s instead.", v.Field, what, article, what, v.limit(), got),
			what + "_above_max_length"
	}
	if v.Got == "0" {
		return fmt.Sprintf("Invalid '%s': empty %s. Expected %s %s with minimum length %s, but got an empty %s instead.", v.Field, what, article, what, v.limit(), what),
			"empty_" + what
	}
	return fmt.Sprintf("Invalid '%s': %s too short. Expected %s %s with minimum length %s, but got %s instead.", v.Field, what, article, what, v.limit(), got),
		what + "_below_min_length"
}

// anthropic is the message: the path with dots, and what should be.
func (v Violation) anthropic() string {
	field := strings.NewReplacer("[", ".", "]", "").Replace(v.Field)
	say := func(s string) string {
		if field == "" {
			return s
		}
		return field + ": " + s
	}
	unit := func(n, one string) string {
		if n == "1" {
			return n + " " + one
		}
		return n + " " + one + "s"
	}
	switch v.Fault {
	case NotJSON:
		return "The request body is not valid JSON"
	case TooDeep:
		return "The request body is not valid JSON: it is nested too deeply"
	case TooComplex:
		return "The request is too complex"
	case Missing:
		return say("Field required")
	case WrongType:
		for _, k := range []struct {
			bit  uint8
			name string
		}{{form.String, "string"}, {form.Array, "list"}, {form.Object, "dictionary"}, {form.Number, "number"}, {form.Int, "integer"}, {form.Bool, "boolean"}} {
			if v.types&k.bit != 0 {
				return say("Input should be a valid " + k.name)
			}
		}
		return say("Input should be null")
	case NotAllowed:
		if v.tag != "" {
			at := strings.TrimSuffix(strings.TrimSuffix(field, v.tag), ".")
			m := fmt.Sprintf("Input tag '%s' found using '%s' does not match any of the expected tags: %s", v.Got, v.tag, strings.ReplaceAll(listed(v.Allowed, ","), ", , ", ", "))
			if at == "" {
				return m
			}
			return at + ": " + m
		}
		return say("Input should be " + listed(v.Allowed, "or"))
	case Unknown:
		return say("Extra inputs are not permitted")
	case TooSmall, TooLarge:
		rel := map[string]string{">=": "greater than or equal to", ">": "greater than", "<=": "less than or equal to", "<": "less than"}
		r := ">="
		if len(v.Allowed) > 1 {
			r = v.Allowed[1]
		}
		return say("Input should be " + rel[r] + " " + v.limit())
	case TooShort:
		return say("String should have at least " + unit(v.limit(), "character"))
	case TooLong:
		return say("String should have at most " + unit(v.limit(), "character"))
	case TooFew, TooMany:
		what := "List"
		if v.kind == form.Object {
			what = "Dictionary"
		}
		rel := "at least"
		if v.Fault == TooMany {
			rel = "at most"
		}
		return say(fmt.Sprintf("%s should have %s %s after validation, not %s", what, rel, unit(v.limit(), "item"), v.Got))
	case WrongFormat:
		return say("String should match " + strconv.Quote(v.limit()))
	}
	return say("Input is not allowed")
}
