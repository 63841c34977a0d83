{{/*
Name of everything in the release: the release's own name where it says mailroute, else with -mailroute behind it.
At most 52 characters, so that suffixes fit into the 63 of a label or Service name.
*/}}
{{- define "mailroute.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}
{{- $name = printf "%s-%s" $name .Chart.Name -}}
{{- end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Labels by which the release's pods are found. They never change during a release's life. */}}
{{- define "mailroute.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the chart itself, which no value can change. */}}
{{- define "mailroute.labels" -}}
{{ include "mailroute.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Labels and annotations of an object, from (dict "root" . "labels" … "annotations" …): those of the chart win over the
object's own, and these over the common ones.
*/}}
{{- define "mailroute.metadata" -}}
{{- $own := include "mailroute.labels" .root | fromYaml -}}
labels:
  {{- merge $own (.labels | default dict) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Reference of an image, from (dict "image" .Values.… "default" .Chart.AppVersion). */}}
{{- define "mailroute.image" -}}
{{- $tagged := printf "%s:%s" .image.repository (.image.tag | default .default) -}}
{{- if .image.digest -}}
{{- printf "%s@%s" $tagged .image.digest -}}
{{- else -}}
{{- $tagged -}}
{{- end -}}
{{- end }}

{{/* Name of the Secret with a certificate that the operator is given. */}}
{{- define "mailroute.certificateSecret" -}}
{{ .Values.certificates.secretName | default (printf "%s-tls" (include "mailroute.fullname" .)) }}
{{- end }}

{{/* Name of the Secret with the operator's own CA. The operator makes it; RBAC names it. */}}
{{- define "mailroute.caSecret" -}}
{{ include "mailroute.fullname" . }}-ca
{{- end }}

{{/* Namespaces out of reach, whatever the labels of their pods: the cluster must come up without the operator. */}}
{{- define "mailroute.untouchedNamespaces" -}}
{{- list "kube-system" .Release.Namespace | uniq | toYaml -}}
{{- end }}

{{/* Selects the namespaces that admission looks at: the watched ones, or all, but those of the list `not`. */}}
{{- define "mailroute.lookedAtNamespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- toYaml .not | nindent 6 }}
  {{- with .root.Values.watch.namespaces }}
  - key: kubernetes.io/metadata.name
    operator: In
    values:
      {{- toYaml . | nindent 6 }}
  {{- end }}
{{- end }}

{{/* Labels of the pods of `helm test`, which are none of the operator's. */}}
{{- define "mailroute.testLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Selects the pods that get their route from the label of their namespace: without a label of their own, and not opted out. */}}
{{- define "mailroute.podsByNamespace" -}}
matchExpressions:
  - key: mailroute.dev/route
    operator: DoesNotExist
  - key: mailroute.dev/inject
    operator: NotIn
    values: ["false"]
{{- end }}

{{/* Refuses values with a sentence where a JSON schema has none. */}}
{{- define "mailroute.check" -}}
{{- with .Values.dns.nameserver -}}
{{- if not (regexMatch `^([0-9.]+|\[[0-9a-fA-F:]+\]):[0-9]{1,5}$` .) -}}
{{- fail (printf "dns.nameserver is %q and has to be ADDRESS:PORT, such as 8.8.8.8:53 or [2001:db8::1]:53: add :53" .) -}}
{{- end -}}
{{- end -}}
{{- $own := list "POD_NAMESPACE" "POD_NAME" "POD_IP" "MAILROUTE_SIDECAR_IMAGE" "MAILROUTE_SIDECAR_IMAGE_PULL_POLICY" "MAILROUTE_SIDECAR_IMAGE_PULL_SECRETS" "MAILROUTE_ENTRA_AUDIENCES" "MAILROUTE_SIDECAR_USER_BY_PLATFORM" "MAILROUTE_ALLOW_IMAGE_OVERRIDE" -}}
{{- range .Values.extraEnv -}}
{{- if has .name $own -}}
{{- fail (printf "extraEnv has %s, which the chart sets itself: remove it" .name) -}}
{{- end -}}
{{- end -}}
{{- if .Values.test.route -}}
{{- range $key := list "namespace" "from" "to" -}}
{{- if not (get $.Values.test $key) -}}
{{- fail (printf "test.route is set and test.%s is not: a test of a route needs its namespace, a sender that it allows, and a recipient" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.watch.namespaces -}}
{{- if has . $.Values.webhook.excludedNamespaces -}}
{{- fail (printf "namespace %s is in watch.namespaces and in webhook.excludedNamespaces: remove it from one of them" .) -}}
{{- end -}}
{{- end -}}
{{- end }}
