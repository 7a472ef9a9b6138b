package service

import (
	"context"
	"slices"
	"strings"

	"connectrpc.com/authn"

	"edgehold.internal/libs/problem"
)

// Role is what a principal may do. Whoever has any role may read; see Server.Handle for what else each of them may.
type Role string

const (
	// RoleViewer may call what has no side effects.
	RoleViewer Role = "viewer"
	// RoleOperator is a person who may change things.
	RoleOperator Role = "operator"
	// RoleAutomation is a program that may change things.
	RoleAutomation Role = "automation"
	// RoleBreakglass may go past checks that can be overridden. It changes nothing by itself: its owner is an operator too.
	RoleBreakglass Role = "breakglass"
)

var roles = []Role{RoleViewer, RoleOperator, RoleAutomation, RoleBreakglass}

// ParseRole returns the role of that name. The error is a *problem.Error of kind Invalid.
func ParseRole(name string) (Role, error) {
	if r := Role(name); slices.Contains(roles, r) {
		return r, nil
	}
	return "", problem.Invalidf("roles", "%q is not a role: %s", name, join(roles))
}

// Principal is who calls.
type Principal struct {
	// Name of a person or a program, from the tokens file, the certificate or the identity provider. "local" for everybody
	// on loopback when no authentication is configured.
	Name  string
	Roles []Role
}

// Has says whether the principal has one of the roles.
func (p Principal) Has(any ...Role) bool {
	return slices.ContainsFunc(any, func(r Role) bool { return slices.Contains(p.Roles, r) })
}

// local is who calls on loopback without authentication: the machine's own user, who could read the kubeconfigs anyway.
var local = Principal{Name: "local", Roles: []Role{RoleOperator, RoleBreakglass}}

// PrincipalFrom returns who calls, or the zero Principal, which has no role.
func PrincipalFrom(ctx context.Context) Principal {
	p, _ := authn.GetInfo(ctx).(Principal)
	return p
}

// WithPrincipal returns a context in which p calls. It is for tests and for work that a service does on its own.
func WithPrincipal(ctx context.Context, p Principal) context.Context { return authn.SetInfo(ctx, p) }

// Require returns nil when the caller has the role, and otherwise a *problem.Error of kind PermissionDenied that says
// which roles it has.
func Require(ctx context.Context, role Role) error { return require(PrincipalFrom(ctx), role) }

func require(p Principal, any ...Role) error {
	if p.Has(any...) {
		return nil
	}
	have := "no role"
	if len(p.Roles) > 0 {
		have = join(p.Roles)
	}
	return problem.New(problem.PermissionDenied, "", "this needs the role %s, and %q has %s; ask someone who has it, or have it granted", join(any, " or "), p.Name, have)
}

func join(roles []Role, separator ...string) string {
	sep := ", "
	if len(separator) > 0 {
		sep = separator[0]
	}
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, sep)
}
