"""Makes a control plane that finds this on its PYTHONPATH another build: what it sends means the same in other bytes.

Clusters, listeners and routes all differ, so that Envoys replace every one of them.
"""

from controlplane.translate import actions, clusters, listeners

clusters._CONNECT_TIMEOUT_S += 1
listeners._IDLE_TIMEOUT_S -= 1
actions._RETRY_UNASKED = ",".join(reversed(actions._RETRY_UNASKED.split(",")))
