module mailroute.dev/tests/peers/clients/go

go 1.25
