"""The configuration of `triolet serve` and `triolet run`.

    flags > environment (TRIOLET_...) > file (triolet.toml) > defaults

`load` returns an immutable `Config`, or raises `ConfigError` with everything that is wrong.
`model` holds the keys and defaults; `loading` puts the sources together; `sources` reads them;
`check` compares them with the model; `rules` are what several keys must agree on; `values` are
strings with a form of their own; `hints` are the words of errors; `printing` is the way back.
"""

from __future__ import annotations

from server.config.check import Problem as Problem
from server.config.loading import ConfigError as ConfigError
from server.config.loading import check_replica as check_replica
from server.config.loading import load as load
from server.config.loading import load_replicas as load_replicas
from server.config.model import AdminConfig as AdminConfig
from server.config.model import AppsConfig as AppsConfig
from server.config.model import BreakerConfig as BreakerConfig
from server.config.model import CodeConfig as CodeConfig
from server.config.model import Config as Config
from server.config.model import FilesConfig as FilesConfig
from server.config.model import HealthConfig as HealthConfig
from server.config.model import KnowledgeConfig as KnowledgeConfig
from server.config.model import KvEventsConfig as KvEventsConfig
from server.config.model import LimitsConfig as LimitsConfig
from server.config.model import PoolConfig as PoolConfig
from server.config.model import ProbeConfig as ProbeConfig
from server.config.model import ReplicaConfig as ReplicaConfig
from server.config.model import TierConfig as TierConfig
from server.config.model import TimeoutConfig as TimeoutConfig
from server.config.model import TlsConfig as TlsConfig
from server.config.model import WebConfig as WebConfig
from server.config.model import WorkflowConfig as WorkflowConfig
from server.config.model import WorkflowTierConfig as WorkflowTierConfig
from server.config.printing import describe as describe
from server.config.values import Address as Address
from server.config.values import parse_listen as parse_listen
from server.config.values import parse_replica_url as parse_replica_url
