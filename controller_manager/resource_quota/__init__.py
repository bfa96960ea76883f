"""ResourceQuota controller: counts what quotas allow and what is used. What new objects add the API server charges."""
