"""NetCDF, Zarr and xarray."""
