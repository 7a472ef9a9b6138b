package say

import (
	"edgehold.internal/services/llmmock"
	"edgehold.internal/services/llmmock/say/schema"
)

// AnyTool is the name in a llmmock.ToolScript for one of the tools that the request offers, drawn.
const AnyTool = "*"

// mustCall says whether the request leaves nothing but to call a tool, and which.
func (v *voice) mustCall() (name string, ok bool) {
	switch v.q.ToolChoice {
	case llmmock.ToolsNamed:
		return v.q.NamedTool, v.q.NamedTool != ""
	case llmmock.ToolsRequired:
		return v.anyTool()
	}
	return "", false
}

func (v *voice) anyTool() (name string, ok bool) {
	if len(v.q.Tools) == 0 {
		return "", false
	}
	return v.q.Tools[v.random().IntN(len(v.q.Tools))].Name, true
}

// call makes up a call of a tool.
func (v *voice) call(name string) llmmock.Call {
	r := v.random().Rand
	c := llmmock.Call{ID: llmmock.ID(r, 24), Name: name, Arguments: "{}"}
	for i := range v.q.Tools {
		if t := &v.q.Tools[i]; t.Name == name && len(t.Schema) > 0 {
			if sc := v.schemaOf(t.Schema); sc != nil {
				if args := sc.Append(nil, r); args[0] == '{' { // a schema may allow what a call cannot have
					c.Arguments = string(args)
				}
			}
			break
		}
	}
	return c
}

// script makes the calls of a rule: of the named tool only where the request names one, and one at most where it forbids more. There
// are none when it is any tool that is to be called and the request offers none.
func (v *voice) script(scripts []llmmock.ToolScript) ([]llmmock.Call, *llmmock.Failure) {
	calls := make([]llmmock.Call, 0, len(scripts))
	for _, s := range scripts {
		name := s.Name
		if name == AnyTool {
			var ok bool
			if name, ok = v.anyTool(); !ok {
				continue
			}
		}
		if v.q.ToolChoice == llmmock.ToolsNamed && name != v.q.NamedTool {
			continue
		}
		c := v.call(name)
		if s.Arguments != "" {
			var f *llmmock.Failure
			if c.Arguments, f = v.maybe(s.Arguments); f != nil {
				return nil, f
			}
			if args, err := schema.ParseValue([]byte(c.Arguments)); err != nil || args.Kind != schema.Object {
				return nil, broken("the scenario %s calls %s with arguments that are no JSON object: %.80q", v.sc.Name, name, c.Arguments)
			}
		}
		calls = append(calls, c)
		if !v.q.ParallelCalls {
			break
		}
	}
	return calls, nil
}
