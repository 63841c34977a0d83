// The resources of the Prometheus operator, as files of its module; nothing of it is built.
module mailroute.dev/tests/monitoring

go 1.26.0

require github.com/prometheus-operator/prometheus-operator v0.85.0
