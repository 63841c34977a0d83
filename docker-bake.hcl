# Images for two architectures, for your own registry: docs/guides/images.md says what has to be in the context.
variable "REGISTRY" {
  default = "registry.example.com/mailroute"
}

variable "VERSION" {
  default = "0.1.0"
}

group "default" {
  targets = ["operator", "sidecar"]
}

target "image" {
  name       = program
  matrix     = { program = ["operator", "sidecar"] }
  context    = "target/programs"
  dockerfile = "../../${program}/Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REGISTRY}/${program}:${VERSION}"]
  args       = { VERSION = VERSION, SOURCE_DATE_EPOCH = "0" }
}
