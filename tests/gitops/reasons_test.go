package gitops

import (
	"os"
	"regexp"
	"testing"
)

// reasons returns the documented reasons.
func reasons(t *testing.T) map[string]bool {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(string(text), -1) {
		found[row[1]] = true
	}
	return found
}

func TestFixturesUseDocumentedReasons(t *testing.T) {
	known := reasons(t)
	for name, fixture := range fixtures(t) {
		status, _ := fixture.object["status"].(map[string]any)
		conditions, _ := status["conditions"].([]any)
		for _, condition := range conditions {
			reason := condition.(map[string]any)["reason"].(string)
			if !known[reason] {
				t.Errorf("%s: docs/reference/reasons.md has no %s", name, reason)
			}
		}
	}
}
