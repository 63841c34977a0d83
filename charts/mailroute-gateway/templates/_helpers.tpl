{{/*
Name of everything in the release, and of the Service that spec.gateway names: the release's own name where it says gateway,
else with -gateway behind it. At most 52 characters, so that a StatefulSet's hash fits into the 63 of a label.
*/}}
{{- define "mailroute-gateway.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "gateway" $name) -}}
{{- $name = printf "%s-gateway" ($name | trunc 44 | trimSuffix "-") -}}
{{- end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Labels by which the release's pods are found. They never change during a release's life. */}}
{{- define "mailroute-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of the chart itself, which no value can change. */}}
{{- define "mailroute-gateway.labels" -}}
{{ include "mailroute-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: gateway
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
Labels and annotations of an object, from (dict "root" . "labels" … "annotations" …): those of the chart win over the
object's own, and these over the common ones. The route's label is the pods' alone: nothing but a pod may have it.
*/}}
{{- define "mailroute-gateway.metadata" -}}
{{- $own := include "mailroute-gateway.labels" .root | fromYaml -}}
labels:
  {{- merge $own (.labels | default dict) .root.Values.commonLabels | toYaml | nindent 2 }}
{{- with merge dict (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Name of the ServiceAccount of the pods. */}}
{{- define "mailroute-gateway.serviceAccount" -}}
{{- $own := ternary (include "mailroute-gateway.fullname" .) "default" .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default $own -}}
{{- end }}

{{/* Name of the Secret with the certificate for SMTP clients; empty where there is none. */}}
{{- define "mailroute-gateway.tlsSecret" -}}
{{- if .Values.smtp.enabled -}}
{{- with .Values.smtp.tls -}}
{{- $own := ternary (printf "%s-smtp-tls" (include "mailroute-gateway.fullname" $)) "" (not (empty .certManager.issuerRef)) -}}
{{- .secretName | default $own -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Refuses values with a sentence where a JSON schema has none. */}}
{{- define "mailroute-gateway.check" -}}
{{- if not .Values.route -}}
{{- fail "route is empty: set it to the name of the MailRoute, in this namespace, that the gateway sends for" -}}
{{- end -}}
{{- if regexMatch "^([0-9]|[1-6][0-9])Mi$|^([0-9]|[1-6][0-9]|7[0-3])M$" .Values.spool.size -}}
{{- fail (printf "spool.size is %s, which is too small for two large messages: at least 70Mi" .Values.spool.size) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" .Release.Name) -}}
{{- fail (printf "the release is named %s, and a Service has its name, which begins with a letter: choose another name" .Release.Name) -}}
{{- end -}}
{{- range tuple .Values.commonLabels .Values.podLabels -}}
{{- if hasKey . "mailroute.dev/route" -}}
{{- fail "commonLabels and podLabels cannot have mailroute.dev/route: set route, and the pods get the label" -}}
{{- end -}}
{{- end -}}
{{- if .Values.smtp.enabled -}}
{{- include "mailroute-gateway.checkSmtp" . -}}
{{- end -}}
{{- end }}

{{/* Whether a namespaceSelector asks for something that not every namespace has. The API server gives each its name as a label. */}}
{{- define "mailroute-gateway.selects" -}}
{{- if .matchLabels -}}
true
{{- else -}}
{{- range .matchExpressions -}}
{{- if or (eq .operator "In") (and (eq .operator "Exists") (ne .key "kubernetes.io/metadata.name")) -}}
true
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "mailroute-gateway.checkSmtp" -}}
{{- $tls := include "mailroute-gateway.tlsSecret" . -}}
{{- with .Values.smtp -}}
{{- if and (not $tls) (not .withoutAuth) -}}
{{- fail "smtp.enabled needs a certificate, because clients log in under TLS only: set smtp.tls.secretName or smtp.tls.certManager.issuerRef" -}}
{{- end -}}
{{- if and .users.secretName (not $tls) -}}
{{- fail "smtp.users needs a certificate, because clients log in under TLS only: set smtp.tls.secretName or smtp.tls.certManager.issuerRef" -}}
{{- end -}}
{{- if not (or .withoutAuth .users.secretName .serviceAccounts.enabled) -}}
{{- fail "smtp.enabled lets nobody send: set smtp.users.secretName, or smtp.serviceAccounts.enabled to true" -}}
{{- end -}}
{{- if .withoutAuth -}}
{{- if not $.Values.networkPolicy.enabled -}}
{{- fail "smtp.withoutAuth needs networkPolicy.enabled: without it, everyone who reaches the gateway could send" -}}
{{- end -}}
{{- if not .peers -}}
{{- fail "smtp.withoutAuth needs smtp.peers: name the pods or networks that may send without a login" -}}
{{- end -}}
{{- range .peers -}}
{{- with .ipBlock -}}
{{- $bits := last (splitList "/" .cidr) | int -}}
{{- if lt $bits (ternary 16 8 (contains ":" .cidr)) -}}
{{- fail (printf "smtp.withoutAuth with the peer %s makes the gateway an open relay: name smaller networks, of at least /8 with IPv4 and /16 with IPv6" .cidr) -}}
{{- end -}}
{{- end -}}
{{- if and (hasKey . "namespaceSelector") (not (include "mailroute-gateway.selects" .namespaceSelector)) -}}
{{- fail "smtp.withoutAuth with a namespaceSelector that selects all namespaces, or all but some, lets pods of every namespace send: select namespaces by label" -}}
{{- end -}}
{{- end -}}
{{- if and (ne .service.type "ClusterIP") (eq .service.externalTrafficPolicy "Cluster") -}}
{{- fail (printf "smtp.withoutAuth with a Service of type %s needs smtp.service.externalTrafficPolicy Local: with Cluster the NetworkPolicy sees the nodes' addresses instead of the clients'" .service.type) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
