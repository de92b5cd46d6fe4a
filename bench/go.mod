module github.com/fpuimg/fpuimg/bench

go 1.26.0

replace github.com/fpuimg/fpuimg => ../

require (
	github.com/checkpoint-restore/go-criu/v8 v8.3.0
	github.com/fpuimg/fpuimg v0.0.0-00010101000000-000000000000
	github.com/klauspost/compress v1.20.4
	golang.org/x/sys v0.50.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/pierrec/lz4/v4 v4.1.33 // indirect
	github.com/xi2/xz v0.0.0-20171230120015-48954b6210f8 // indirect
)
