"""What meets the outside: servers, encoders and index files. Imported lazily, by need."""
