// Package twice says it here, in one file.
package twice
