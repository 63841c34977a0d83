"""Sends one message with Python's smtplib: HOST PORT FROM TO[,TO…] FILE."""
import smtplib
import sys

host, port, sender, recipients, path = sys.argv[1:]
with open(path, "rb") as file:
    message = file.read()
with smtplib.SMTP(host, int(port), timeout=60) as smtp:
    refused = smtp.sendmail(sender, recipients.split(","), message)
    assert not refused, refused
