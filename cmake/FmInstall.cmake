# What `cmake --install` puts where.
install(DIRECTORY include/flowmesh/ ${PROJECT_BINARY_DIR}/include/flowmesh/
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/flowmesh FILES_MATCHING PATTERN "*.h")
