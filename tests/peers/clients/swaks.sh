#!/bin/sh
# Sends one message with swaks: HOST PORT FROM TO[,TO…] FILE. swaks would add a line of its own; so it is given the octets
# as they go over the wire.
{ sed 's/^[.]/../' "$5" && printf '.\r\n'; } >/tmp/data
exec swaks --silent 2 --server "$1" --port "$2" --ehlo swaks.example --from "$3" --to "$4" --data @/tmp/data --no-data-fixup
