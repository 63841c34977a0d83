#!/bin/sh
# Sends one message with curl: HOST PORT FROM TO[,TO…] FILE.
for recipient in $(echo "$4" | tr , ' '); do set -- "$@" --mail-rcpt "$recipient"; done
url="smtp://$1:$2/curl.example" from=$3 file=$5
shift 5
exec curl --silent --show-error --url "$url" --mail-from "$from" "$@" --upload-file "$file"
