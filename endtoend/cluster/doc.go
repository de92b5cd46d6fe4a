// Package cluster tries the manifests of deploy, and what fpuimg need prints for a
// scheduler, on a real kube-apiserver and kube-scheduler over a real etcd, all built from
// their Go modules. It has a module of its own, because building them takes half an hour of
// two CPUs: "make cluster".
package cluster
