{{/* The beginning of every object's name. Room is left for the longest ending, "-token-service". */}}
{{- define "appreg.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 49 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 49 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of every object. */}}
{{- define "appreg.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: appreg
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: appreg
{{- end -}}

{{/* Labels that select the pods of one component; they can never change. Arguments: root, component. */}}
{{- define "appreg.selector" -}}
app.kubernetes.io/name: appreg
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

{{/* What every pod has in common. Arguments: root, component. */}}
{{- define "appreg.podMetadata" -}}
annotations:
  # A pod reads its configuration once: another one is another pod.
  appreg.dev/configuration: {{ include "appreg.configuration" .root | sha256sum }}
  {{- with .root.Values.pods.annotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
labels:
  {{- include "appreg.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .component }}
  {{- with .root.Values.pods.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* A pod's specification, but for its container. Arguments: root, component. */}}
{{- define "appreg.podSpec" -}}
serviceAccountName: {{ include "appreg.fullname" .root }}-{{ .component }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.pods.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .root.Values.pods.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
volumes:
  - name: configuration
    configMap: {name: {{ include "appreg.fullname" .root }}}
{{- end -}}

{{/* A container's rights and the configuration file: the same in every pod. */}}
{{- define "appreg.container" -}}
image: {{ include "appreg.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
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
