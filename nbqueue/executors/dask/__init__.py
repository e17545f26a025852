"""Jobs on a Dask cluster; imports distributed only when it is asked for."""
