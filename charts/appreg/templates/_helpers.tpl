{{/* The chart's name, or what the user calls it. */}}
{{- define "appreg.name" -}}
{{- .Values.nameOverride | default .Chart.Name -}}
{{- end -}}

{{/* The beginning of every object's name. Room is left for the longest ending, "-token-service". */}}
{{- define "appreg.fullname" -}}
{{- $name := include "appreg.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 49 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 49 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. The schema refuses commonLabels with one of the names set here. */}}
{{- define "appreg.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "appreg.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: appreg
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of one component; they can never change. Arguments: root, component. */}}
{{- define "appreg.selector" -}}
app.kubernetes.io/name: {{ include "appreg.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* The image, by digest where there is one. */}}
{{- define "appreg.image" -}}
{{- $image := printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- if .Values.image.digest -}}
{{- $image = printf "%s@%s" $image .Values.image.digest -}}
{{- end -}}
{{- $image -}}
{{- end -}}

{{/* The ledger's namespace, which the token service reads: never that of the CA's keys. */}}
{{- define "appreg.ledgerNamespace" -}}
{{- if eq .Values.ledger.namespace .Release.Namespace -}}
{{- fail (printf "ledger.namespace is %q, the release's own namespace: the token service would read the CA's private keys there. Name another one" .Release.Namespace) -}}
{{- end -}}
{{- .Values.ledger.namespace -}}
{{- end -}}

{{/* The issuer identifier. */}}
{{- define "appreg.issuer" -}}
{{- .Values.authorizationServer.issuer | default (printf "https://%s-token-service.%s.svc" (include "appreg.fullname" .) .Release.Namespace) -}}
{{- end -}}

{{/* The configuration file that controller and token service read. */}}
{{- define "appreg.configuration" -}}
{{- $service := printf "%s-token-service.%s.svc" (include "appreg.fullname" .) .Release.Namespace -}}
{{- $names := concat (list $service (printf "%s.%s" $service .Values.authorizationServer.clusterDomain)) .Values.authorizationServer.servingNames | uniq -}}
{{- $server := dict
  "issuer" (include "appreg.issuer" .)
  "accessTokenLifetime" .Values.authorizationServer.accessTokenLifetime
  "signingAlgorithm" .Values.authorizationServer.signingAlgorithm
  "servingNames" $names -}}
{{- with .Values.authorizationServer.defaultAudience -}}
{{- $_ := set $server "defaultAudience" . -}}
{{- end -}}
{{- if .Values.authorizationServer.forwardedCertificates.proxies -}}
{{- $_ := set $server "forwardedCertificates" .Values.authorizationServer.forwardedCertificates -}}
{{- end -}}
{{- toYaml (dict "authorizationServer" $server "policy" .Values.policy) -}}
{{- end -}}

{{/* Metadata of a component's pods. Arguments: root, component, values (the component's own). */}}
{{- define "appreg.podMetadata" -}}
annotations:
  # A pod reads its configuration once, so a changed configuration needs new pods.
  appreg.dev/configuration: {{ include "appreg.configuration" .root | sha256sum }}
  {{- with .values.podAnnotations | default .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- /* A label of the pods may have another value in commonLabels: the one for the pods counts. */}}
  {{- $labels := include "appreg.labels" .root | fromYaml }}
  {{- $_ := set $labels "app.kubernetes.io/component" .component }}
  {{- merge dict (.values.podLabels | default .root.Values.podLabels | default dict) $labels | toYaml | nindent 2 }}
{{- end -}}

{{/* A pod's specification, but for its container. Arguments: root, component, values (the component's own). */}}
{{- define "appreg.podSpec" -}}
serviceAccountName: {{ include "appreg.fullname" .root }}-{{ .component }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- $settings := dict }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
{{- with get $.values $name | default (get $.root.Values $name) }}
{{- $_ := set $settings $name . }}
{{- end }}
{{- end }}
{{- with .values.topologySpreadConstraints | default .root.Values.topologySpreadConstraints }}
{{- $pods := dict "labelSelector" (dict "matchLabels" (include "appreg.selector" $ | fromYaml)) }}
{{- $constraints := list }}
{{- range . }}
{{- if not (hasKey . "labelSelector") }}
{{- $constraints = append $constraints (merge dict . $pods) }}
{{- else }}
{{- $constraints = append $constraints . }}
{{- end }}
{{- end }}
{{- $_ := set $settings "topologySpreadConstraints" $constraints }}
{{- end }}
{{- with $settings }}
{{ toYaml . }}
{{- end }}
volumes:
  - name: configuration
    configMap: {name: {{ include "appreg.fullname" .root }}}
{{- end -}}

{{/* The flags that both programs have. Arguments: root, values (the component's own). */}}
{{- define "appreg.commonArgs" -}}
- --config=/etc/appreg/appreg.yaml
- --ledger-namespace={{ include "appreg.ledgerNamespace" .root }}
- --admin-address={{ .root.Values.bindAddress }}:8080
- {{ printf "--log-level=%s" .root.Values.log.level | quote }}
- --log-format={{ .root.Values.log.format }}
{{- with .values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* A container, but for its name, arguments and ports. Arguments: root, values (the component's own). */}}
{{- define "appreg.container" -}}
image: {{ include "appreg.image" .root | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{- with .values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .root.Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .values.resources | nindent 2 }}
volumeMounts:
  - {name: configuration, mountPath: /etc/appreg, readOnly: true}
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* A component's ServiceAccount. Arguments: root, component, values (the component's own). */}}
{{- define "appreg.serviceAccount" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "appreg.fullname" .root }}-{{ .component }}
  labels:
    {{- include "appreg.labels" .root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}
