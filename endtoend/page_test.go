package endtoend

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

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
		if i == 7 {
			name = filepath.Join(dir, "<script>alert(7)<%2Fscript>&amp;")
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
	ctx, cancel = context.WithTimeout(ctx, 3*time.Minute)
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

	milliseconds := func(script string) string {
		var ms float64
		do(chromedp.Evaluate(script, &ms))
		return fmt.Sprintf("%.0f ms", ms)
	}

	do(network.Enable(), log.Enable(), chromedp.Navigate("file://"+path), chromedp.WaitReady("tbody td"))
	t.Logf("script until %s", milliseconds(`performance.getEntriesByType('navigation')[0].domInteractive`))
	t.Logf("opened in %s", milliseconds(`performance.getEntriesByType('navigation')[0].domComplete`))
	is("rows", `document.querySelectorAll('tbody tr').length`, rows)
	is("cells", `document.querySelectorAll('tbody td').length`, rows*columns)
	is("a name is text", `[...document.querySelectorAll('tbody th')].some(th => th.textContent.includes('<script>alert(7)'))`, true)
	is("scripts", `document.querySelectorAll('script').length`, 2)
	is("a cell says it in words", `/^(ok|risk|drop|LOSS|DIES|BAD|GAP)/.test(document.querySelector('tbody td').textContent)`, true)
	shot("light")

	// The heads sort, and say so.
	do(chromedp.Click("thead th:nth-child(5) button"))
	is("sorted", `document.querySelectorAll('thead th')[4].getAttribute('aria-sort')`, "ascending")
	t.Logf("sorted and laid out in %s", milliseconds(`(() => { const start = performance.now(); sort(3); document.body.offsetHeight; sort(3); document.body.offsetHeight; return (performance.now() - start) / 2; })()`))
	is("the worst first", `(() => { const k = [...document.querySelectorAll('tbody tr')].map(tr => data.results[data.images[tr.cells[4].dataset.at.split(' ')[0]].cells[3]].kind);
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

	do(emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	is("dark", `getComputedStyle(document.body).backgroundColor`, "rgb(20, 23, 26)")
	shot("dark")
	do(chromedp.ActionFunc(func(ctx context.Context) error {
		pdf, _, err := page.PrintToPDF().WithLandscape(true).Do(ctx)
		if err == nil && len(pdf) < 10_000 {
			err = fmt.Errorf("a PDF of %d bytes", len(pdf))
		}
		return err
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
