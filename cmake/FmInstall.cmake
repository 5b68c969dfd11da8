# What `cmake --install` puts where, and how others find it.
include(CMakePackageConfigHelpers)
set(FM_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/flowmesh)
set(FM_SHARE_DIR ${CMAKE_INSTALL_DATADIR}/flowmesh)

# libflowmesh: what include/flowmesh declares FM_EXPORT, and nothing else.  The
# modules are linked into the programs; this library is for programs of others.
add_library(libflowmesh SHARED ${PROJECT_SOURCE_DIR}/src/base/error.c)
set_target_properties(libflowmesh PROPERTIES OUTPUT_NAME flowmesh
    EXPORT_NAME flowmesh VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR})
target_include_directories(libflowmesh PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
    $<BUILD_INTERFACE:${PROJECT_BINARY_DIR}/include>
    $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
target_link_libraries(libflowmesh PRIVATE $<BUILD_INTERFACE:fm_options>)

install(TARGETS libflowmesh EXPORT flowmeshTargets
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(TARGETS flowmesh flowmesh-engine
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
# The man page and the completion come from the program's own command table.
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/flowmesh.1
    COMMAND flowmesh --man > ${PROJECT_BINARY_DIR}/flowmesh.1
    DEPENDS flowmesh VERBATIM)
add_custom_command(OUTPUT ${PROJECT_BINARY_DIR}/flowmesh.bash
    COMMAND flowmesh --completion > ${PROJECT_BINARY_DIR}/flowmesh.bash
    DEPENDS flowmesh VERBATIM)
add_custom_target(manual ALL DEPENDS ${PROJECT_BINARY_DIR}/flowmesh.1
    ${PROJECT_BINARY_DIR}/flowmesh.bash)
install(FILES ${PROJECT_BINARY_DIR}/flowmesh.1
    DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${PROJECT_BINARY_DIR}/flowmesh.bash RENAME flowmesh
    DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(DIRECTORY include/flowmesh/ ${PROJECT_BINARY_DIR}/include/flowmesh/
    DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/flowmesh FILES_MATCHING PATTERN "*.h")

install(EXPORT flowmeshTargets NAMESPACE flowmesh::
    DESTINATION ${FM_CMAKE_DIR})
configure_package_config_file(cmake/flowmeshConfig.cmake.in
    ${PROJECT_BINARY_DIR}/flowmeshConfig.cmake
    INSTALL_DESTINATION ${FM_CMAKE_DIR})
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/flowmeshConfigVersion.cmake
    COMPATIBILITY SameMinorVersion)     # below 1.0 a minor may break
install(FILES ${PROJECT_BINARY_DIR}/flowmeshConfig.cmake
    ${PROJECT_BINARY_DIR}/flowmeshConfigVersion.cmake
    DESTINATION ${FM_CMAKE_DIR})

# ${pcfiledir} keeps the installation relocatable; it needs a relative way back.
file(RELATIVE_PATH FM_PC_TO_PREFIX
    ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
configure_file(cmake/flowmesh.pc.in ${PROJECT_BINARY_DIR}/flowmesh.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/flowmesh.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(PROGRAMS slurm/flowmesh.sbatch slurm/join.sbatch DESTINATION ${FM_SHARE_DIR}/slurm)
install(DIRECTORY examples DESTINATION ${FM_SHARE_DIR} USE_SOURCE_PERMISSIONS)
install(FILES LICENSE CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
