// This is wrong because it does not name the package.
package wrong
