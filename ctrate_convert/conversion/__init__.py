"""From a frozen plan to proven shards: plan, convert, publish, record, merge, gate."""
