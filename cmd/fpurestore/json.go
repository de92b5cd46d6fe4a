package main

import "github.com/fpuimg/fpuimg/cmd/internal/view"

// restoreDoc is the JSON document of schema fpurestore/1.
type restoreDoc struct {
	Schema  string      `json:"schema"`
	PID     int         `json:"pid"`
	Outcome string      `json:"outcome"` // restored, saved, planned, refused, unchanged or broken
	Threads []threadDoc `json:"threads"`
}

type threadDoc struct {
	ImageTID int              `json:"image_tid"`
	TID      int              `json:"tid"`
	From     string           `json:"from"`
	To       string           `json:"to"`
	Actions  []view.ActionDoc `json:"actions"`
	Lost     []view.LossDoc   `json:"lost"`
	Error    *string          `json:"error"`
}
