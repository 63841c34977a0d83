// Sends one message with Go's net/smtp: HOST PORT FROM TO[,TO…] FILE.
package main

import (
	"fmt"
	"net"
	"net/smtp"
	"os"
	"strings"
)

func main() {
	host, port, from, to, file := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	message, err := os.ReadFile(file)
	if err == nil {
		err = smtp.SendMail(net.JoinHostPort(host, port), nil, from, strings.Split(to, ","), message)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
