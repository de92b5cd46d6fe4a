package endtoend

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"google.golang.org/protobuf/encoding/protowire"
)

// hostile makes a checkpoint whose task has the name of a tag.
func hostile(t *testing.T, dir string) {
	t.Helper()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "testdata", "images", "h-sse"))); err != nil {
		t.Fatal(err)
	}
	cores, err := filepath.Glob(filepath.Join(dir, "core-*.img"))
	if err != nil || len(cores) != 1 {
		t.Fatal(cores, err)
	}
	b, err := os.ReadFile(cores[0])
	if err != nil {
		t.Fatal(err)
	}
	// tc.comm and thread_core.comm (images/core.proto), behind two magics and a length.
	entry := b[12:]
	for _, field := range [][]protowire.Number{{3, 6}, {5, 13}} {
		entry = splice(t, entry, field, []byte("<script>alert()"))
	}
	b = append(binary.LittleEndian.AppendUint32(bytes.Clone(b[:8]), uint32(len(entry))), entry...)
	if err := os.WriteFile(cores[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// splice puts a value into the field of a message that the numbers lead to.
func splice(t *testing.T, message []byte, path []protowire.Number, value []byte) (out []byte) {
	t.Helper()
	for found := false; len(message) > 0; {
		num, typ, n := protowire.ConsumeTag(message)
		size := n + protowire.ConsumeFieldValue(num, typ, message[max(n, 0):])
		if n < 0 || size < n {
			t.Fatal("no message")
		}
		if num == path[0] && !found {
			found = true
			old, _ := protowire.ConsumeBytes(message[n:])
			if len(path) > 1 {
				old = splice(t, old, path[1:], value)
			} else {
				old = value
			}
			out = protowire.AppendBytes(protowire.AppendTag(out, num, protowire.BytesType), old)
		} else {
			out = append(out, message[:size]...)
		}
		message = message[size:]
	}
	return out
}

// fleet makes a page of many images and machines, and returns its path and how many
// there are.
func fleet(t *testing.T) (path string, rows, columns int) {
	t.Helper()
	dir := t.TempDir()
	all := images(t)
	path = filepath.Join(dir, "fleet.html")
	args := []string{"check", "--html=" + path}
	for i := range 40 {
		name := filepath.Join(dir, fmt.Sprintf("node-%02d", i))
		if err := os.Symlink(all[i%len(all)], name); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--host="+name)
	}
	for i := range 500 {
		name := filepath.Join(dir, fmt.Sprintf("image-%d", i))
		switch i {
		case 7:
			name = filepath.Join(dir, "<script>alert(7)<%2Fscript>&amp;")
		case 8:
			hostile(t, name)
			args = append(args, name)
			continue
		}
		if err := os.Symlink(all[i%len(all)], name); err != nil {
			t.Fatal(err)
		}
		args = append(args, name)
	}
	start := time.Now()
	fpuimg(t, args...)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("check took %v, the page has %d bytes", time.Since(start).Round(time.Millisecond), info.Size())
	return path, 500, 40
}

// The page opens from a file, asks nobody for anything, and does what it says by mouse
// and keyboard. FPU_SHOTS is a directory for screenshots.
func TestPage(t *testing.T) {
	path, rows, columns := fleet(t)
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, chromedp.DisableGPU, chromedp.WindowSize(1280, 800), chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true))...)
	defer cancel()
	ctx, cancel := chromedp.NewContext(allocator)
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()

	var mu sync.Mutex
	var talk, asked []string
	chromedp.ListenTarget(ctx, func(event any) {
		mu.Lock()
		defer mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			talk = append(talk, e.ExceptionDetails.Text)
		case *runtime.EventConsoleAPICalled:
			talk = append(talk, fmt.Sprint(e.Type))
		case *log.EventEntryAdded:
			talk = append(talk, e.Entry.Text)
		case *page.EventJavascriptDialogOpening:
			talk = append(talk, "a dialog: "+e.Message)
		case *network.EventRequestWillBeSent:
			asked = append(asked, e.Request.URL)
		}
	})
	do := func(actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			t.Fatal(err)
		}
	}
	shot := func(name string) {
		var b []byte
		do(chromedp.CaptureScreenshot(&b))
		if dir := os.Getenv("FPU_SHOTS"); dir != "" {
			if err := os.WriteFile(filepath.Join(dir, name+".png"), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	is := func(what, script string, want any) {
		t.Helper()
		var got any
		do(chromedp.Evaluate(script, &got))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
	}

	// tell tells how long something took that a script has measured, and how long the
	// page's thread has run since it was last asked.
	var ran float64
	tell := func(what, script string) {
		t.Helper()
		var ms, now float64
		do(chromedp.Evaluate(script, &ms, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }),
			chromedp.ActionFunc(func(ctx context.Context) error {
				metrics, err := performance.GetMetrics().Do(ctx)
				for _, m := range metrics {
					if m.Name == "TaskDuration" {
						now = m.Value
					}
				}
				return err
			}))
		t.Logf("%s: %.0f ms, and %.0f ms of its thread", what, ms, 1000*(now-ran))
		ran = now
	}

	do(network.Enable(), log.Enable(), performance.Enable().WithTimeDomain(performance.EnableTimeDomainThreadTicks),
		chromedp.Navigate("file://"+path), chromedp.WaitReady("tbody td"))
	tell("opened", `performance.getEntriesByType('navigation')[0].domComplete`)
	is("rows", `document.querySelectorAll('tbody tr').length`, rows)
	is("cells", `document.querySelectorAll('tbody td').length`, rows*columns)
	is("a name is text", `[...document.querySelectorAll('tbody th')].some(th => th.textContent.includes('<script>alert(7)'))`, true)
	is("a name that is far down is found", `window.find('image-499')`, true)
	is("scripts", `document.querySelectorAll('script').length`, 2)
	is("a cell says it in words", `/^(ok|risk|drop|LOSS|DIES|BAD|GAP)/.test(document.querySelector('tbody td').textContent)`, true)
	shot("light")

	// The heads sort, and say so.
	do(chromedp.Click("thead th:nth-child(5) button"))
	is("sorted", `document.querySelectorAll('thead th')[4].getAttribute('aria-sort')`, "ascending")
	tell("until then", `0`)
	tell("sorted", `new Promise(done => { const start = performance.now(); sort(3); requestAnimationFrame(() => setTimeout(() => done(performance.now() - start))); })`)
	do(chromedp.Click("thead th:nth-child(5) button"))
	is("the worst first", `(() => { const k = [...document.querySelectorAll('tbody tr')].map(tr => data.results[data.images[tr.dataset.image].cells[3]].kind);
		return k.every((v, i) => i === 0 || k[i - 1] >= v) && k[0] > k.at(-1); })()`, true)
	do(chromedp.Click("thead th:nth-child(1) button"))
	is("by name", `document.querySelectorAll('tbody th')[3].textContent.endsWith('image-2')`, true)

	// Filters hide rows and columns, and say how many are left.
	do(chromedp.SendKeys("#image-filter", "image-49"), chromedp.SendKeys("#host-filter", "node-0"))
	is("filtered", `document.getElementById('count').textContent`, "11 of 500 images, 10 of 40 machines")
	shot("filtered")
	do(chromedp.Evaluate(`for (const id of ['image-filter', 'host-filter']) { document.getElementById(id).value = ''; document.getElementById(id).dispatchEvent(new Event('input')); }`, nil))
	is("all again", `document.getElementById('count').textContent`, "500 of 500 images, 40 of 40 machines")

	// The keyboard alone: Tab to the table, arrows, Enter, Escape.
	do(chromedp.Evaluate(`rove(body.rows[0].cells[1]); document.querySelector('td[tabindex="0"]').focus()`, nil),
		chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowDown), chromedp.KeyEvent(kb.End), chromedp.KeyEvent(kb.ArrowLeft))
	is("moved", `document.activeElement.cellIndex + ' ' + document.activeElement.parentNode.rowIndex`, "39 2")
	is("one stop", `document.querySelectorAll('td[tabindex="0"]').length`, 1)
	do(chromedp.KeyEvent(kb.Enter))
	is("opened", `document.getElementById('details').open`, true)
	is("the title names both", `/ on node-38: /.test(document.getElementById('details-title').textContent)`, true)
	shot("details")
	do(chromedp.KeyEvent(kb.Escape))
	is("closed", `document.getElementById('details').open`, false)
	is("back where it was", `document.activeElement.cellIndex`, 39)

	// A loss comes with the command that helps.
	do(chromedp.Evaluate(`document.querySelector('td.bad').click()`, nil))
	is("findings", `document.querySelectorAll('#details article').length > 0`, true)
	is("commands", `[...document.querySelectorAll('#details pre')].some(e => e.textContent.startsWith('fpuimg convert '))`, true)
	shot("loss")
	do(chromedp.KeyEvent(kb.Escape))

	// The name of a task is text there.
	do(chromedp.Evaluate(`[...document.querySelectorAll('tbody tr')].find(tr => tr.cells[0].textContent.endsWith('image-8')).cells[1].click()`, nil))
	is("a task's name is text", `document.getElementById('details-body').textContent.includes('Tasks: <script>alert()')`, true)
	is("scripts", `document.querySelectorAll('script').length`, 2)
	do(chromedp.KeyEvent(kb.Escape))

	do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	is("dark", `getComputedStyle(document.body).backgroundColor`, "rgb(20, 23, 26)")
	shot("dark")
	do(emulation.SetEmulatedMedia().WithMedia("print"), chromedp.EmulateViewport(1040, 720))
	is("all machines are on the paper", `document.documentElement.scrollWidth <= 1040 && document.querySelector('thead th:last-child').getBoundingClientRect().right <= 1040`, true)
	is("all images are on the paper", `[...document.querySelectorAll('tbody td')].every(td => td.getBoundingClientRect().height > 0)`, true)
	shot("print")
	do(emulation.SetEmulatedMedia(), chromedp.EmulateViewport(390, 800))
	is("the page does not scroll sideways", `document.documentElement.scrollWidth`, 390)
	shot("narrow")

	// In the end those who do not look at the screen are told of what is not on it.
	do(chromedp.EmulateViewport(1280, 800), chromedp.Poll(`document.querySelectorAll('tbody tr.settled').length === data.images.length`, nil))
	do(chromedp.ActionFunc(func(ctx context.Context) error {
		root, err := dom.GetDocument().Do(ctx)
		if err != nil {
			return err
		}
		for role, want := range map[string]int{"gridcell": rows * columns, "rowheader": rows, "columnheader": columns + 1} {
			nodes, err := accessibility.QueryAXTree().WithNodeID(root.NodeID).WithRole(role).Do(ctx)
			if err != nil || len(nodes) != want {
				t.Errorf("a screen reader is told of %d of role %s, want %d; %v", len(nodes), role, want, err)
			}
		}
		return nil
	}))

	mu.Lock()
	defer mu.Unlock()
	if len(talk) > 0 {
		t.Errorf("the console says %q", talk)
	}
	for _, url := range asked {
		if !strings.HasPrefix(url, "file://"+filepath.Dir(path)) {
			t.Errorf("it asked for %s", url)
		}
	}
}
