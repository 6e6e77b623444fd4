package gitops

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// fixture is an object in a state that the CRDs document, and what the tools show for it.
type fixture struct {
	object                map[string]any
	health, message, flux string
}

// fixtures reads testdata/*.yaml. The expectation is the first line: `# argocd: HEALTH (part of the message); flux: STATUS`.
func fixtures(t *testing.T) map[string]fixture {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 12 {
		t.Fatal(files, err)
	}
	head := regexp.MustCompile(`^# argocd: (\w+) \((.*)\); flux: (\w+)\n`)
	found := map[string]fixture{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := head.FindStringSubmatch(string(text))
		if parts == nil {
			t.Fatalf("%s: no expectation in the first line", file)
		}
		var object map[string]any
		if err := yaml.Unmarshal(text, &object); err != nil {
			t.Fatal(file, err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		found[name] = fixture{object, parts[1], parts[2], parts[3]}
	}
	return found
}

// state is a combination of what health depends on.
type state struct {
	ready, stalled, reconciling string // status, or empty for an absent condition
	paused, revoked, observed   bool
}

func (s state) object(kind string) map[string]any {
	var conditions []any
	for _, condition := range []struct{ name, status string }{
		{"Ready", s.ready}, {"Stalled", s.stalled}, {"Reconciling", s.reconciling},
	} {
		if condition.status != "" {
			reason := "Throttled"
			if condition.name != "Reconciling" && s.revoked && s.ready == "False" {
				reason = "CredentialsRevoked"
			}
			conditions = append(conditions, map[string]any{
				"type": condition.name, "status": condition.status, "reason": reason, "message": condition.name,
			})
		}
	}
	observed := float64(-1)
	if s.observed {
		observed = 3
	}
	metadata := map[string]any{"name": "a", "namespace": "b", "generation": float64(3)}
	if s.paused {
		metadata["annotations"] = map[string]any{"awsdeploy.dev/paused": "true"}
	}
	spec := map[string]any{"credentials": "Active"}
	if s.revoked {
		spec["credentials"] = "Revoked"
	}
	status := map[string]any{"observedGeneration": observed}
	if conditions != nil {
		status["conditions"] = conditions
	}
	return map[string]any{"apiVersion": "awsdeploy.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec, "status": status}
}

// want returns the health of Argo CD and the status of Flux.
func (s state) want() (string, string) {
	switch {
	case s.paused && !s.observed:
		return "Suspended", "InProgress"
	case s.paused:
		return "Suspended", "Current"
	case !s.observed || s.ready == "":
		// Flux trusts Stalled without Ready; the operator never writes it alone.
		if s.observed && s.stalled == "True" {
			return "Progressing", "Failed"
		}
		return "Progressing", "InProgress"
	case s.ready == "True" && s.stalled == "True":
		// The operator never writes both.
		return "Healthy", "Failed"
	case s.ready == "True":
		return "Healthy", "Current"
	case s.revoked && s.ready == "False":
		return "Suspended", "Current"
	case s.stalled == "True":
		return "Degraded", "Failed"
	case s.reconciling == "True":
		return "Progressing", "InProgress"
	case s.ready == "False":
		return "Degraded", "InProgress"
	default:
		return "Progressing", "InProgress"
	}
}

func TestToolsAgreeInEveryState(t *testing.T) {
	statuses, flags := []string{"", "True", "False", "Unknown"}, []bool{false, true}
	count := 0
	for _, ready := range statuses {
		for _, stalled := range statuses[:2] {
			for _, reconciling := range statuses[:2] {
				for _, observed := range flags {
					for _, paused := range flags {
						for _, revoked := range flags {
							for _, kind := range []string{"AwsDeployUser", "AwsDeployUserClass"} {
								s := state{ready, stalled, reconciling, paused, revoked, observed}
								if kind == "AwsDeployUserClass" && (paused || revoked) {
									continue
								}
								count++
								t.Run(fmt.Sprintf("%s %+v", kind, s), func(t *testing.T) {
									object := s.object(kind)
									health, status := s.want()
									if found := argoHealth(t, object); found.Status != health || found.Message == "" {
										t.Errorf("Argo CD: %+v, not %s", found, health)
									}
									if found := fluxStatus(t, object); found != status {
										t.Errorf("Flux: %s, not %s", found, status)
									}
								})
							}
						}
					}
				}
			}
		}
	}
	if count != 160 {
		t.Errorf("%d states", count)
	}
}
