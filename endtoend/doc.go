// Package endtoend tries what fpuimg prints for others on those others: the page of
// check --html in a browser, the manifests of need on the scheduler's own matcher.
package endtoend
