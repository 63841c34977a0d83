#!/bin/sh
# Sends one message with msmtp: HOST PORT FROM TO[,TO…] FILE.
exec msmtp --host="$1" --port="$2" --from="$3" --tls=off --auth=off -- $(echo "$4" | tr , ' ') <"$5"
