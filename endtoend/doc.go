// Package endtoend tries what fpuimg prints for others on those others: the page of
// check --html in a browser, what need prints on the scheduler's own matcher, and the
// manifests of deploy with the types and rules of Kubernetes.
package endtoend
