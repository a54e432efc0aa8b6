package taskwire

import (
	"time"

	"ecs/internal/task"
	ecsv1 "ecs/proto/ecs/v1"
)

// FromSpec gives the message of a spec.
func FromSpec(s task.Spec) *ecsv1.Spec {
	return &ecsv1.Spec{
		Image:                 s.Image,
		Command:               s.Command,
		Entrypoint:            s.Entrypoint,
		HasEntrypoint:         s.Entrypoint != nil,
		Env:                   s.Env,
		Workdir:               s.Workdir,
		User:                  s.User,
		MilliCpu:              s.Resources.MilliCPU,
		MilliCpuLimit:         s.Resources.MilliCPULimit,
		Memory:                s.Resources.Memory,
		Pids:                  s.Resources.Pids,
		CapAdd:                s.CapAdd,
		Network:               string(s.Network),
		QueueTimeout:          int64(s.Timeouts.Queue),
		PullTimeout:           int64(s.Timeouts.Pull),
		RunTimeout:            int64(s.Timeouts.Run),
		TotalTimeout:          int64(s.Timeouts.Total),
		InfrastructureRetries: int32(s.InfrastructureRetries),
		Delivery:              string(s.Delivery),
		Lease:                 int64(s.Lease),
		Zones:                 s.Placement.Zones,
		Spread:                string(s.Placement.Spread),
		MaxOutput:             s.MaxOutput,
		Labels:                s.Labels,
		Retention:             int64(s.Retention),
		Secrets:               s.Secrets,
		SecretEnvNames:        s.SecretEnvNames,
		HasAuth:               s.HasAuth,
		DefaultCaps:           s.DefaultCaps,
		Stdin:                 s.Stdin,
		StdinSize:             s.StdinSize,
		OpenStdin:             s.OpenStdin,
		Tty:                   s.TTY,
		Files:                 each(s.Files, fromFile),
		Outputs:               s.Outputs,
		ProgramRetries:        int32(s.ProgramRetries),
		RetryExitCodes:        each(s.RetryExitCodes, func(code int) int32 { return int32(code) }),
		RetryBackoff:          int64(s.RetryBackoff),
	}
}

// ToSpec gives the spec of a message.
func ToSpec(m *ecsv1.Spec) task.Spec {
	s := task.Spec{
		Image:      m.GetImage(),
		Command:    m.GetCommand(),
		Entrypoint: m.GetEntrypoint(),
		Env:        m.GetEnv(),
		Workdir:    m.GetWorkdir(),
		User:       m.GetUser(),
		Resources: task.Resources{
			MilliCPU:      m.GetMilliCpu(),
			MilliCPULimit: m.GetMilliCpuLimit(),
			Memory:        m.GetMemory(),
			Pids:          m.GetPids(),
		},
		CapAdd:  m.GetCapAdd(),
		Network: task.Network(m.GetNetwork()),
		Timeouts: task.Timeouts{
			Queue: time.Duration(m.GetQueueTimeout()),
			Pull:  time.Duration(m.GetPullTimeout()),
			Run:   time.Duration(m.GetRunTimeout()),
			Total: time.Duration(m.GetTotalTimeout()),
		},
		InfrastructureRetries: int(m.GetInfrastructureRetries()),
		Delivery:              task.Delivery(m.GetDelivery()),
		Lease:                 time.Duration(m.GetLease()),
		Placement: task.Placement{
			Zones:  m.GetZones(),
			Spread: task.Spread(m.GetSpread()),
		},
		MaxOutput:      m.GetMaxOutput(),
		Labels:         m.GetLabels(),
		Retention:      time.Duration(m.GetRetention()),
		Secrets:        m.GetSecrets(),
		SecretEnvNames: m.GetSecretEnvNames(),
		HasAuth:        m.GetHasAuth(),
		DefaultCaps:    m.GetDefaultCaps(),
		Stdin:          m.GetStdin(),
		StdinSize:      m.GetStdinSize(),
		OpenStdin:      m.GetOpenStdin(),
		TTY:            m.GetTty(),
		Files:          each(m.GetFiles(), toFile),
		Outputs:        m.GetOutputs(),
		ProgramRetries: int(m.GetProgramRetries()),
		RetryExitCodes: each(m.GetRetryExitCodes(), func(code int32) int { return int(code) }),
		RetryBackoff:   time.Duration(m.GetRetryBackoff()),
	}
	if s.Entrypoint == nil && m.GetHasEntrypoint() {
		s.Entrypoint = []string{} // clears the image's, unlike an absent one
	}
	return s
}

func fromFile(f task.File) *ecsv1.File {
	return &ecsv1.File{Path: f.Path, Mode: f.Mode, Content: f.Content, Size: f.Size}
}

func toFile(m *ecsv1.File) task.File {
	return task.File{Path: m.GetPath(), Mode: m.GetMode(), Content: m.GetContent(), Size: m.GetSize()}
}

// FromSecrets gives the message that is sealed into Spec.Secrets.
func FromSecrets(s *task.Secrets) *ecsv1.Secrets {
	if s == nil {
		return nil
	}
	m := &ecsv1.Secrets{Env: s.Env}
	if s.Auth != nil {
		m.HasAuth = true
		m.Username, m.Password, m.Email = s.Auth.Username, s.Auth.Password, s.Auth.Email
	}
	return m
}

// ToSecrets gives the secrets of an opened message.
func ToSecrets(m *ecsv1.Secrets) *task.Secrets {
	if m == nil {
		return nil
	}
	s := &task.Secrets{Env: m.GetEnv()}
	if m.GetHasAuth() {
		s.Auth = &task.RegistryAuth{Username: m.GetUsername(), Password: m.GetPassword(), Email: m.GetEmail()}
	}
	return s
}
