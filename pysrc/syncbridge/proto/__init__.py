"""The include folder of the .proto files, and the Python modules generated from them."""
