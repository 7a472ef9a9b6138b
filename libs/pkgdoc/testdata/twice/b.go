// Package twice says it here too, in another.
package twice
