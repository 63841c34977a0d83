// Command coredns is CoreDNS with just the plug-ins that a test cluster needs: the cluster's own names, and zones
// written by hand for the test domains' MX, SPF and DKIM records. The whole of CoreDNS carries every cloud's SDK and
// takes minutes to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/file"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/log"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

// The order in which plug-ins see a query; CoreDNS sets it by this list, never by the configuration file. The
// template comes last: it answers for whatever no other plug-in knows.
var directives = []string{"health", "ready", "errors", "log", "cache", "hosts", "kubernetes", "file", "template"}

func main() {
	dnsserver.Directives = directives
	coremain.Run()
}
