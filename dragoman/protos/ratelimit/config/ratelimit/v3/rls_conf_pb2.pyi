from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RateLimitUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    UNKNOWN: _ClassVar[RateLimitUnit]
    SECOND: _ClassVar[RateLimitUnit]
    MINUTE: _ClassVar[RateLimitUnit]
    HOUR: _ClassVar[RateLimitUnit]
    DAY: _ClassVar[RateLimitUnit]
    MONTH: _ClassVar[RateLimitUnit]
    YEAR: _ClassVar[RateLimitUnit]
    WEEK: _ClassVar[RateLimitUnit]

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    REQUEST: _ClassVar[Mode]
    QUOTA: _ClassVar[Mode]

class Algorithm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ALGORITHM_UNSPECIFIED: _ClassVar[Algorithm]
    FIXED_WINDOW: _ClassVar[Algorithm]
    TOKEN_BUCKET: _ClassVar[Algorithm]
    SLIDING_WINDOW: _ClassVar[Algorithm]
    LEAKY_BUCKET: _ClassVar[Algorithm]
    CONCURRENCY: _ClassVar[Algorithm]

class OnStoreError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_STORE_ERROR_UNSPECIFIED: _ClassVar[OnStoreError]
    ALLOW: _ClassVar[OnStoreError]
    DENY: _ClassVar[OnStoreError]
    LOCAL: _ClassVar[OnStoreError]
UNKNOWN: RateLimitUnit
SECOND: RateLimitUnit
MINUTE: RateLimitUnit
HOUR: RateLimitUnit
DAY: RateLimitUnit
MONTH: RateLimitUnit
YEAR: RateLimitUnit
WEEK: RateLimitUnit
MODE_UNSPECIFIED: Mode
REQUEST: Mode
QUOTA: Mode
ALGORITHM_UNSPECIFIED: Algorithm
FIXED_WINDOW: Algorithm
TOKEN_BUCKET: Algorithm
SLIDING_WINDOW: Algorithm
LEAKY_BUCKET: Algorithm
CONCURRENCY: Algorithm
ON_STORE_ERROR_UNSPECIFIED: OnStoreError
ALLOW: OnStoreError
DENY: OnStoreError
LOCAL: OnStoreError

class RateLimitConfig(_message.Message):
    __slots__ = ("name", "domain", "descriptors", "dragoman")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    DRAGOMAN_FIELD_NUMBER: _ClassVar[int]
    name: str
    domain: str
    descriptors: _containers.RepeatedCompositeFieldContainer[RateLimitDescriptor]
    dragoman: DomainExtension
    def __init__(self, name: _Optional[str] = ..., domain: _Optional[str] = ..., descriptors: _Optional[_Iterable[_Union[RateLimitDescriptor, _Mapping]]] = ..., dragoman: _Optional[_Union[DomainExtension, _Mapping]] = ...) -> None: ...

class RateLimitDescriptor(_message.Message):
    __slots__ = ("key", "value", "rate_limit", "descriptors", "shadow_mode", "detailed_metric", "quota_mode", "dragoman")
    KEY_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    RATE_LIMIT_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTORS_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MODE_FIELD_NUMBER: _ClassVar[int]
    DETAILED_METRIC_FIELD_NUMBER: _ClassVar[int]
    QUOTA_MODE_FIELD_NUMBER: _ClassVar[int]
    DRAGOMAN_FIELD_NUMBER: _ClassVar[int]
    key: str
    value: str
    rate_limit: RateLimitPolicy
    descriptors: _containers.RepeatedCompositeFieldContainer[RateLimitDescriptor]
    shadow_mode: bool
    detailed_metric: bool
    quota_mode: bool
    dragoman: DescriptorExtension
    def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ..., rate_limit: _Optional[_Union[RateLimitPolicy, _Mapping]] = ..., descriptors: _Optional[_Iterable[_Union[RateLimitDescriptor, _Mapping]]] = ..., shadow_mode: _Optional[bool] = ..., detailed_metric: _Optional[bool] = ..., quota_mode: _Optional[bool] = ..., dragoman: _Optional[_Union[DescriptorExtension, _Mapping]] = ...) -> None: ...

class RateLimitPolicy(_message.Message):
    __slots__ = ("unit", "requests_per_unit", "unlimited", "name", "replaces", "dragoman")
    UNIT_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_PER_UNIT_FIELD_NUMBER: _ClassVar[int]
    UNLIMITED_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REPLACES_FIELD_NUMBER: _ClassVar[int]
    DRAGOMAN_FIELD_NUMBER: _ClassVar[int]
    unit: RateLimitUnit
    requests_per_unit: int
    unlimited: bool
    name: str
    replaces: _containers.RepeatedCompositeFieldContainer[RateLimitReplace]
    dragoman: PolicyExtension
    def __init__(self, unit: _Optional[_Union[RateLimitUnit, str]] = ..., requests_per_unit: _Optional[int] = ..., unlimited: _Optional[bool] = ..., name: _Optional[str] = ..., replaces: _Optional[_Iterable[_Union[RateLimitReplace, _Mapping]]] = ..., dragoman: _Optional[_Union[PolicyExtension, _Mapping]] = ...) -> None: ...

class RateLimitReplace(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DomainExtension(_message.Message):
    __slots__ = ("on_store_error", "counters_without_domain", "refines")
    ON_STORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_WITHOUT_DOMAIN_FIELD_NUMBER: _ClassVar[int]
    REFINES_FIELD_NUMBER: _ClassVar[int]
    on_store_error: OnStoreError
    counters_without_domain: bool
    refines: bool
    def __init__(self, on_store_error: _Optional[_Union[OnStoreError, str]] = ..., counters_without_domain: _Optional[bool] = ..., refines: _Optional[bool] = ...) -> None: ...

class DescriptorExtension(_message.Message):
    __slots__ = ("value_to_metric", "share_threshold")
    VALUE_TO_METRIC_FIELD_NUMBER: _ClassVar[int]
    SHARE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    value_to_metric: bool
    share_threshold: bool
    def __init__(self, value_to_metric: _Optional[bool] = ..., share_threshold: _Optional[bool] = ...) -> None: ...

class PolicyExtension(_message.Message):
    __slots__ = ("algorithm", "burst", "on_store_error", "delay_ms", "lease_time_ms", "lease", "mode", "hidden", "unit_multiplier")
    ALGORITHM_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    ON_STORE_ERROR_FIELD_NUMBER: _ClassVar[int]
    DELAY_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    HIDDEN_FIELD_NUMBER: _ClassVar[int]
    UNIT_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    algorithm: Algorithm
    burst: int
    on_store_error: OnStoreError
    delay_ms: int
    lease_time_ms: int
    lease: int
    mode: Mode
    hidden: bool
    unit_multiplier: int
    def __init__(self, algorithm: _Optional[_Union[Algorithm, str]] = ..., burst: _Optional[int] = ..., on_store_error: _Optional[_Union[OnStoreError, str]] = ..., delay_ms: _Optional[int] = ..., lease_time_ms: _Optional[int] = ..., lease: _Optional[int] = ..., mode: _Optional[_Union[Mode, str]] = ..., hidden: _Optional[bool] = ..., unit_multiplier: _Optional[int] = ...) -> None: ...
