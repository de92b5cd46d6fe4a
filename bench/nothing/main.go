// Nothing starts and ends: what any Go program takes.
package main

func main() {}
