#!/bin/sh
# Sends one message through a Postfix of its own, which relays everything: HOST PORT FROM TO[,TO…] FILE.
set -e
folder=$(mktemp -d /tmp/postfix.XXXXXX)
/peers/postfix/start "$folder" "$1" "$2"
trap 'postfix -c "$folder/etc" stop >/dev/null 2>&1' EXIT
sendmail -C "$folder/etc" -i -f "$3" -- $(echo "$4" | tr , ' ') <"$5"
# Delivered when the queue is empty again; what it says meanwhile is the reason when it does not become so.
tries=0
until postqueue -c "$folder/etc" -p | grep -q 'is empty'; do
    tries=$((tries + 1))
    if [ "$tries" -gt 300 ]; then postqueue -c "$folder/etc" -p >&2; exit 1; fi
    sleep 0.1
done
