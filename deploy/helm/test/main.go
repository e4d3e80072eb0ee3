// Command render does what `helm template` and `helm lint --strict` do, with Helm's own packages, where there is no helm.
//
//	render template [-notes] CHART [VALUES.yaml ...]
//	render lint CHART [VALUES.yaml ...]
//
// Later files win. What is refused goes to stderr, and the exit code is 1. It knows no cluster: `lookup` finds nothing.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

const (
	releaseName = "promdedup"
	namespace   = "thanos"
	// That of Helm's client library; without it Helm's packages believe in one that is years old.
	kubernetes = "v1.33.0"
)

func main() {
	// The loader says of every symbolic link that it follows it.
	log.SetOutput(io.Discard)
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "render:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("usage: render template [-notes] CHART [VALUES.yaml ...], or render lint CHART [VALUES.yaml ...]")
	}
	verb, rest := arguments[0], arguments[1:]
	notes := rest[0] == "-notes"
	if notes {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return fmt.Errorf("no chart")
	}
	values, err := merged(rest[1:])
	if err != nil {
		return err
	}
	switch verb {
	case "template":
		return template(rest[0], values, notes)
	case "lint":
		return check(rest[0], values)
	default:
		return fmt.Errorf("%q is neither template nor lint", verb)
	}
}

func merged(files []string) (map[string]interface{}, error) {
	all := map[string]interface{}{}
	for _, file := range files {
		values, err := chartutil.ReadValuesFile(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all = chartutil.MergeTables(values, all)
	}
	return all, nil
}

func template(folder string, values map[string]interface{}, notes bool) error {
	chart, err := loader.Load(folder)
	if err != nil {
		return err
	}
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = *version
	if !chartutil.IsCompatibleRange(chart.Metadata.KubeVersion, capabilities.KubeVersion.Version) {
		return fmt.Errorf("the chart wants Kubernetes %s, not %s", chart.Metadata.KubeVersion, capabilities.KubeVersion.Version)
	}
	if err := chartutil.ProcessDependencies(chart, values); err != nil {
		return err
	}
	options := chartutil.ReleaseOptions{Name: releaseName, Namespace: namespace, Revision: 1, IsInstall: true}
	full, err := chartutil.ToRenderValues(chart, values, options, capabilities)
	if err != nil {
		return err
	}
	rendered, err := engine.Render(chart, full)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(rendered))
	for name := range rendered {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		text := strings.TrimSpace(rendered[name])
		isNotes := path.Base(name) == "NOTES.txt"
		switch {
		case text == "" || strings.HasPrefix(path.Base(name), "_") || isNotes != notes:
		case notes:
			fmt.Println(text)
		default:
			fmt.Printf("---\n# Source: %s\n%s\n", name, text)
		}
	}
	return nil
}

func check(folder string, values map[string]interface{}) error {
	version, err := chartutil.ParseKubeVersion(kubernetes)
	if err != nil {
		return err
	}
	linter := lint.AllWithKubeVersion(folder, values, namespace, version)
	found := 0
	for _, message := range linter.Messages {
		if message.Severity >= support.WarningSev {
			fmt.Println(message)
			found++
		}
	}
	if found > 0 {
		return fmt.Errorf("%d complaint(s)", found)
	}
	return nil
}
