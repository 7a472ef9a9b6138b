// Command does something.
package main

func main() {}
